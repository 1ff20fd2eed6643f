"""Questions to answers, and texts to vectors, by a trained run."""

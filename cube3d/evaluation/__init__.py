"""What a trained model is worth: metrics, intervals, baselines and tests of its reading."""

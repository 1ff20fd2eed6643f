"""Training on pairs: rows, order, steps, and what is mixed in at the end."""

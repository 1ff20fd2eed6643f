"""Building sets of pairs: what is kept of them, what is made of them, and what a run works on."""

"""The reader: text to a vector in the teachers' space by a lattice over its tokens, without a transformer."""

"""Trains a 3D lattice to carry a question's embedding to its answer's, taught by language models."""

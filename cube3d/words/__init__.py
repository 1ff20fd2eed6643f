"""Word vectors from the files that word2vec, GloVe and fastText write."""

from cube3d.words.read import read_word_vectors
from cube3d.words.vectors import WordVectors
from cube3d.words.write import write_word2vec

__all__ = ["WordVectors", "read_word_vectors", "write_word2vec"]

"""A run as a model of sentence-transformers, for those who do not have cube3d."""

from cube3d.export.sentence_transformer import export

__all__ = ["export"]

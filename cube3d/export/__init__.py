"""A run as a model of sentence-transformers or a graph of ONNX, for those who do not have cube3d."""

from cube3d.export.sentence_transformer import ROUTES, export

__all__ = ["ROUTES", "export"]

"""Language models that turn text into the vectors a cube learns from."""

from cube3d.teachers.cache import embed
from cube3d.teachers.transformer import Teacher

__all__ = ["Teacher", "embed"]

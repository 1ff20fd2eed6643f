"""Language models that turn text into the vectors a cube learns from."""

from cube3d.teachers.agreement import Agreement, agreement, item_agreement
from cube3d.teachers.cache import embed
from cube3d.teachers.open import open_teacher
from cube3d.teachers.teacher import Teacher

__all__ = ["Agreement", "Teacher", "agreement", "embed", "item_agreement", "open_teacher"]

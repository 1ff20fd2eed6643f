"""Language models that turn text into the vectors a cube learns from, one or several that act as one."""

from cube3d.teachers.agreement import Agreement, agreement, item_agreement
from cube3d.teachers.cache import embed
from cube3d.teachers.ensemble import Ensemble, fit_ensemble, load_ensemble
from cube3d.teachers.open import open_teacher
from cube3d.teachers.teacher import Teacher
from cube3d.teachers.weights import WeightsNoted

__all__ = [
    "Agreement",
    "Ensemble",
    "Teacher",
    "WeightsNoted",
    "agreement",
    "embed",
    "fit_ensemble",
    "item_agreement",
    "load_ensemble",
    "open_teacher",
]

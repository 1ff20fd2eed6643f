"""What a prediction should be: losses by name, the negatives they push away from, and their weighted sum."""

from cube3d.losses.batch import Batch
from cube3d.losses.cosine import CosineLoss
from cube3d.losses.distillation import RelationalDistillationLoss
from cube3d.losses.diversity import DiversityLoss
from cube3d.losses.info_nce import InfoNCELoss
from cube3d.losses.mse import MSELoss
from cube3d.losses.objective import Objective
from cube3d.losses.triplet import TripletLoss

__all__ = [
    "Batch",
    "CosineLoss",
    "DiversityLoss",
    "InfoNCELoss",
    "MSELoss",
    "Objective",
    "RelationalDistillationLoss",
    "TripletLoss",
]

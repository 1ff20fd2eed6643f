"""What a prediction should be: losses by name, and their weighted sum."""

from cube3d.losses.cosine import CosineLoss
from cube3d.losses.info_nce import InfoNCELoss
from cube3d.losses.objective import Objective

__all__ = ["CosineLoss", "InfoNCELoss", "Objective"]

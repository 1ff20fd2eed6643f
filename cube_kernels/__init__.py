"""Fast, exact, trainable 3D lattices for PyTorch."""

from cube_kernels.dispatch import BackendError
from cube_kernels.embedding import EmbeddingCube
from cube_kernels.functional import perceive, rollout
from cube_kernels.lattice import Lattice
from cube_kernels.layer import CubeLayer
from cube_kernels.rule import Rule, RuleParameters

__all__ = [
    "BackendError",
    "CubeLayer",
    "EmbeddingCube",
    "Lattice",
    "Rule",
    "RuleParameters",
    "perceive",
    "rollout",
]

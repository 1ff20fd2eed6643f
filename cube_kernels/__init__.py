"""Fast, exact, trainable 3D lattices for PyTorch."""

from torch.serialization import add_safe_globals

from cube_kernels import growing, rules, view
from cube_kernels.automaton import Automaton, bind
from cube_kernels.backends.contract import BackendError
from cube_kernels.call.dispatch import register_backend
from cube_kernels.call.options import Rollout
from cube_kernels.cells import Cell, GMLPCell, GRUCell
from cube_kernels.embedding import EmbeddingCube
from cube_kernels.filters import fixed_filters
from cube_kernels.functional import perceive, rollout
from cube_kernels.lattice import Lattice, Window
from cube_kernels.layer import CubeLayer
from cube_kernels.reading import TokenCube, TokenLattice, TokenReading
from cube_kernels.update_rule import Alive, Rule, RuleParameters

__all__ = [
    "Alive",
    "Automaton",
    "BackendError",
    "Cell",
    "CubeLayer",
    "EmbeddingCube",
    "GMLPCell",
    "GRUCell",
    "Lattice",
    "Rollout",
    "Rule",
    "RuleParameters",
    "TokenCube",
    "TokenLattice",
    "TokenReading",
    "Window",
    "bind",
    "fixed_filters",
    "growing",
    "perceive",
    "register_backend",
    "rollout",
    "rules",
    "view",
]

# Values that check themselves when made, and run nothing else: `torch.load`, which makes only what it is told to trust,
# may make them.
add_safe_globals([Alive, Lattice, Rollout, Rule, RuleParameters, Window])

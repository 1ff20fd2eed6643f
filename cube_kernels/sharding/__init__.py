"""One lattice over several devices and machines, by ``torch.distributed``.

A lattice that does not fit one of them is cut along its axes into blocks, one a rank (:class:`Sharding`).
:class:`ShardedCubeLayer` runs and trains a :class:`cube_kernels.CubeLayer` on it; :func:`rollout` and :func:`perceive`
are the same on plain tensors.
"""

from cube_kernels.sharding.agreement import DisagreementError
from cube_kernels.sharding.blocks import Sharding
from cube_kernels.sharding.exchange import PeerError
from cube_kernels.sharding.layer import ShardedCubeLayer
from cube_kernels.sharding.rollout import perceive, rollout

__all__ = ["DisagreementError", "PeerError", "ShardedCubeLayer", "Sharding", "perceive", "rollout"]

"""An embedding carried through a lattice: a drop-in map ``[B, dim] → [B, dim]``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cube_kernels.lattice import Lattice
from cube_kernels.layer import CubeLayer
from cube_kernels.options import check_choice, check_positive
from cube_kernels.rule import Rule


class EmbeddingCube(nn.Module):
    """``[B, dim] → [B, dim]``: an embedding is placed on a lattice, rolled out, and read back as a correction.

    ::

        h = e / rms(e),  placed as [cells, f] with f = dim / cells
        x = lift(h) + position            [cells, C], learned
        e' = e + rms(e) · readout(rollout(x))

    The readout starts at zero, so that an untrained cube is the identity; and the correction scales with the
    embedding, so that the cube commutes with multiplying its input by a positive number.

    Args:
        dim: width of the embedding; a multiple of the number of cells.
        lattice: where it is placed, in the order of its dimensions, ``f`` a cell.
        rule: what each cell computes; without drive.
        steps: steps of the rollout; 0 leaves lift and readout alone (the lattice is off).
        lift: ``"per_cell"`` gives each cell a lift and a readout of its own, ``"shared"`` one to all (a position
            code tells the cells apart).
        backend, checkpoint_every: see :class:`CubeLayer`.

    Raises:
        ValueError: ``dim`` does not fill the lattice (the message names the nearest that do), a rule with
            drive, or an unknown lift.
    """

    def __init__(
        self,
        dim: int,
        lattice: Lattice,
        rule: Rule,
        steps: int,
        lift: str = "per_cell",
        backend: str = "auto",
        checkpoint_every: int | None = None,
    ) -> None:
        super().__init__()
        check_positive("EmbeddingCube", "dim", dim)
        check_choice("EmbeddingCube", "lift", lift, ["per_cell", "shared"])
        if dim % lattice.cells:
            below = dim // lattice.cells * lattice.cells
            nearest = " or ".join(str(d) for d in (below, below + lattice.cells) if d)
            raise ValueError(
                f"EmbeddingCube: dim {dim} does not fill {lattice.shape}, which has {lattice.cells} cells; dim must "
                f"be a multiple of that, such as {nearest}"
            )
        if rule.drive:
            raise ValueError(f"EmbeddingCube: the rule has {rule.drive} drive channels; it takes a rule without")
        self.dim, self.lattice, self.per_cell = dim, lattice, lift == "per_cell"
        width, lifts = dim // lattice.cells, lattice.cells if self.per_cell else 1
        self.lift = nn.Parameter(torch.empty(lifts, width, lattice.channels))
        self.position = nn.Parameter(torch.empty(lattice.cells, lattice.channels))
        self.layer = CubeLayer(lattice, rule, steps, backend, checkpoint_every)
        self.readout = nn.Parameter(torch.empty(lifts, lattice.channels, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew from torch's global generator; the readout becomes zero."""
        nn.init.normal_(self.lift, std=self.lift.shape[1] ** -0.5)
        nn.init.normal_(self.position, std=0.3)
        nn.init.zeros_(self.readout)
        self.layer.reset_parameters()

    def place(self, embedding: Tensor) -> Tensor:
        """``[B, dim]`` to the lattice's first state, ``[B, D, H, W, C]``."""
        if embedding.dim() != 2 or embedding.shape[1] != self.dim:
            raise ValueError(f"EmbeddingCube: got shape {list(embedding.shape)}; it takes [B, {self.dim}]")
        if embedding.dtype != self.lift.dtype:
            raise TypeError(f"EmbeddingCube: got {embedding.dtype}, but its parameters are {self.lift.dtype}")
        if embedding.device != self.lift.device:
            raise ValueError(f"EmbeddingCube: got {embedding.device}, but its parameters are on {self.lift.device}")
        cells = (embedding / self._scale(embedding)).unflatten(1, (self.lattice.cells, -1))
        state = torch.einsum("bnf,nfc->bnc", cells, self._for_each_cell(self.lift)) + self.position
        return state.unflatten(1, self.lattice.shape)

    def read(self, state: Tensor) -> Tensor:
        """The lattice's state, ``[B, D, H, W, C]``, to a correction of the normalized embedding, ``[B, dim]``."""
        return torch.einsum("bnc,ncf->bnf", state.flatten(1, 3), self._for_each_cell(self.readout)).flatten(1)

    def forward(self, embedding: Tensor) -> Tensor:
        """
        Args:
            embedding: ``[B, dim]`` in the parameters' dtype and on their device.
        """
        correction = self.read(self.layer(self.place(embedding)))
        return embedding + self._scale(embedding) * correction

    def _scale(self, embedding: Tensor) -> Tensor:
        mean_square = embedding.square().mean(dim=1, keepdim=True)
        return mean_square.clamp_min(torch.finfo(embedding.dtype).tiny).sqrt()

    def _for_each_cell(self, weight: Tensor) -> Tensor:
        return weight if self.per_cell else weight.expand(self.lattice.cells, -1, -1)

"""An embedding carried through a lattice: a drop-in map ``[B, dim] → [B, dim]``."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cube_kernels.lattice import Lattice
from cube_kernels.layer import CubeLayer
from cube_kernels.precision import agree, wide
from cube_kernels.regions import block_shape, find_region, steps_to_reach
from cube_kernels.update_rule import Rule
from cube_kernels.value import check_choice, check_positive, check_range


def _scale(embedding: Tensor) -> Tensor:
    """The root mean square of each row, ``[B, 1]``."""
    return embedding.square().mean(dim=1, keepdim=True).clamp_min(torch.finfo(embedding.dtype).tiny).sqrt()


class EmbeddingCube(nn.Module):
    """``[B, dim] → [B, dim]``: an embedding is placed on a lattice, rolled out, and read back as a correction.

    ::

        h = e / rms(e),  placed as [cells, f] with f = dim / cells of the input region
        x = lift(h) + position            [cells, C], learned
        e' = e + rms(e) · readout(rollout(x))

    A dense lift is one linear map from all dimensions to all cells of the input region, its readout one from all cells
    of the output region to all dimensions.

    The readout starts at zero, so that an untrained cube is the identity; and the correction scales with the
    embedding, so that the cube commutes with multiplying its input by a positive number.

    >>> cube = EmbeddingCube(384, Lattice((4, 4, 4), channels=16), Rule(hidden=32), steps=4)
    >>> vectors = torch.randn(5, 384)
    >>> torch.equal(cube(vectors), vectors)
    True

    Args:
        dim: width of the embedding; a multiple of the number of cells of either region, unless the lift is dense.
        lattice: where it is placed, ``f`` dimensions a cell.
        rule: what each cell computes; without drive.
        steps: steps of the rollout; 0 leaves lift and readout alone (the lattice is off).
        lift: ``"per_cell"`` gives each cell a lift and a readout of its own, ``"shared"`` one to all (a position
            code tells the cells apart), ``"dense"`` shows every cell all dimensions: ``[dim, cells·C]`` and
            ``[cells·C, dim]``.
        backend, checkpoint_every: see :class:`CubeLayer`.
        input, output: the regions where the embedding enters and leaves: ``"volume"``, ``"front"`` and ``"back"``
            (opposite faces, the first and the last slice along D) or ``"corners"``. The other cells start at their
            position code.
        proportion: share of a face that is taken, in whole rows along H around its middle.
        order: which dimension takes which place, a permutation ``[dim]``, int64; None: the dimensions in their order.
            It is a buffer, saved with the parameters. A dense lift takes none: its cells see every dimension.

    Raises:
        ValueError: ``dim`` does not fill a region (the message names the nearest that do), a rule with
            drive, an unknown lift or region, an order that is no permutation, or one for a dense lift, or fewer steps
            than it takes to reach each cell of the output from the input.
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
        input: str = "volume",
        output: str = "volume",
        proportion: float = 1.0,
        order: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.dim = check_positive("EmbeddingCube", "dim", dim)
        check_choice("EmbeddingCube", "lift", lift, ["per_cell", "shared", "dense"])
        steps = check_positive("EmbeddingCube", "steps", steps, least=0)
        if rule.drive:
            raise ValueError(f"EmbeddingCube: the rule has {rule.drive} drive channels; it takes a rule without")
        proportion = check_range("EmbeddingCube", "proportion", proportion, 0, 1)
        if proportion != 1 and not {input, output} & {"front", "back"}:
            raise ValueError(f"EmbeddingCube: proportion is {proportion}, but neither region is a face")
        self.lattice, self.per_cell, self.dense = lattice, lift == "per_cell", lift == "dense"
        self.input, self.output = (find_region(name, lattice, proportion) for name in (input, output))
        self.input_shape, self.output_shape = (block_shape(r, lattice) for r in (self.input, self.output))
        if not self.dense:
            for name, block in ((input, self.input_shape), (output, self.output_shape)):
                self._check_fills(name, block)
        self._check_reaches(input, output, steps)
        cells, read = math.prod(self.input_shape), math.prod(self.output_shape)
        self.lift = nn.Parameter(torch.empty(self._lift_shape(cells)))
        self.position = nn.Parameter(torch.empty(lattice.cells, lattice.channels))
        self.layer = CubeLayer(lattice, rule, steps, backend, checkpoint_every)
        self.readout = nn.Parameter(torch.empty(self._lift_shape(read)).mT.contiguous())
        self.order: Tensor | None
        self.register_buffer("order", None)
        if order is not None:
            self.set_order(order)
        self.reset_parameters()

    def _lift_shape(self, cells: int) -> tuple[int, ...]:
        """Of the map from dimensions to the channels of so many cells; the readout's has its last two exchanged."""
        channels = self.lattice.channels
        if self.dense:
            return self.dim, cells * channels
        return cells if self.per_cell else 1, self.dim // cells, channels

    def _check_fills(self, name: str, block: tuple[int, int, int]) -> None:
        cells = math.prod(block)
        if self.dim % cells:
            below = self.dim // cells * cells
            nearest = " or ".join(str(d) for d in (below, below + cells) if d)
            where = f"{self.lattice.shape}" if name == "volume" else f"{name!r} of {self.lattice.shape}"
            raise ValueError(
                f"EmbeddingCube: dim {self.dim} does not fill {where}, which has {cells} cells; dim must "
                f"be a multiple of that, such as {nearest}"
            )

    def _check_reaches(self, input: str, output: str, steps: int) -> None:
        needed = steps_to_reach(self.lattice, self.input, self.output)
        if needed is None:
            raise ValueError(
                f"EmbeddingCube: neighborhood {self.lattice.neighborhood!r} never leads from {input!r} to {output!r}"
            )
        if steps < needed:
            raise ValueError(
                f"EmbeddingCube: steps is {steps}, but it takes {needed} from {input!r} to every cell of {output!r}"
            )

    def set_order(self, order: Tensor) -> None:
        """Which dimension takes which place from now on: a permutation ``[dim]``, int64.

        Raises:
            ValueError: it is none, or the lift is dense.
        """
        if self.dense:
            raise ValueError("EmbeddingCube: lift 'dense' shows every dimension to each cell; an order has no meaning")
        # On the meta device, where a model is built before its file is read, there are no values to check.
        if not order.is_meta and order.sort().values.tolist() != list(range(self.dim)):
            raise ValueError(f"EmbeddingCube: order is no permutation of the {self.dim} dimensions")
        self.order = order.clone()

    def reset_parameters(self) -> None:
        """Draws the parameters anew from torch's global generator; the readout becomes zero."""
        nn.init.normal_(self.lift, std=self.lift.shape[-2] ** -0.5)
        nn.init.normal_(self.position, std=0.3)
        nn.init.zeros_(self.readout)
        self.layer.reset_parameters()

    def place(self, embedding: Tensor) -> Tensor:
        """``[B, dim]`` to the lattice's first state, ``[B, D, H, W, C]``."""
        if embedding.dim() != 2 or embedding.shape[1] != self.dim:
            raise ValueError(f"EmbeddingCube: got shape {list(embedding.shape)}; it takes [B, {self.dim}]")
        if embedding.device != self.lift.device:
            raise ValueError(f"EmbeddingCube: got {embedding.device}, but its parameters are on {self.lift.device}")
        if not agree(embedding, self.lift):
            raise TypeError(f"EmbeddingCube: got {embedding.dtype}, but its parameters are {self.lift.dtype}")
        values = wide(embedding)
        values = (values / _scale(values)).to(self.lift.dtype)
        if self.order is not None:
            values = values[:, self.order]
        if self.dense:
            state = (values @ self.lift).unflatten(1, (*self.input_shape, self.lattice.channels))
        else:
            cells = values.unflatten(1, (math.prod(self.input_shape), -1))
            state = torch.einsum("bnf,nfc->bnc", cells, self._for_each_cell(self.lift, self.input_shape))
            state = state.unflatten(1, self.input_shape)
        if self.input_shape != self.lattice.shape:
            entered = state
            state = entered.new_zeros(len(entered), *self.lattice.state_shape)
            state[(slice(None), *self.input)] = entered
        return state + self.position.unflatten(0, self.lattice.shape)

    def read(self, state: Tensor) -> Tensor:
        """The lattice's state, ``[B, D, H, W, C]``, to a correction of the normalized embedding, ``[B, dim]``."""
        if self.dense:
            return state[(slice(None), *self.output)].flatten(1) @ self.readout
        cells = state[(slice(None), *self.output)].flatten(1, 3)
        values = torch.einsum("bnc,ncf->bnf", cells, self._for_each_cell(self.readout, self.output_shape)).flatten(1)
        return values if self.order is None else values[:, self.order.argsort()]

    def forward(self, embedding: Tensor) -> Tensor:
        """
        Args:
            embedding: ``[B, dim]`` in the parameters' dtype and on their device; under autocast it may be of another
                dtype, as a layer before it leaves it, but float64.

        Returns:
            ``[B, dim]`` in the dtype of the embedding. The root mean square and the sum are computed in float32 at
            least.
        """
        correction = self.read(self.layer(self.place(embedding)))
        values = wide(embedding)
        return (values + _scale(values) * correction).to(embedding.dtype)

    def _for_each_cell(self, weight: Tensor, block: tuple[int, int, int]) -> Tensor:
        return weight if self.per_cell else weight.expand(math.prod(block), -1, -1)

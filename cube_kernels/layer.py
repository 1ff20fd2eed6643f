"""The rollout as a module that drops into any trainer."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor, nn

from cube_kernels import layer_file
from cube_kernels.automaton import bind
from cube_kernels.call.dispatch import BACKENDS
from cube_kernels.call.options import Rollout
from cube_kernels.functional import rollout
from cube_kernels.lattice import Lattice
from cube_kernels.update_rule import Rule, RuleParameters
from cube_kernels.value import check_choice, check_positive

if TYPE_CHECKING:
    from typing_extensions import Self


class CubeLayer(nn.Module):
    """``[B, D, H, W, C] → [B, D, H, W, C]``: ``steps`` steps of a learned rule on a lattice.

    The parameters are ``bind(lattice, rule).parameter_shapes``. They start so that a rollout begins close to the
    state it was given: filters ``N(0, 1/offsets)``, the hidden layer as ``nn.Linear`` does, head weights
    ``N(0, 0.02²)`` for the residual and gated updates and ``N(0, 1/hidden)`` for the others, gates at σ(-2), time
    constants at 1.

    >>> layer = CubeLayer(Lattice((4, 4, 4), channels=8), Rule(hidden=32), steps=6)
    >>> layer(torch.randn(2, 4, 4, 4, 8)).shape
    torch.Size([2, 4, 4, 4, 8])
    >>> layer(torch.randn(2, 4, 4, 4, 8), steps=3, trajectory_every=1).trajectory.shape
    torch.Size([3, 2, 4, 4, 4, 8])

    Args:
        lattice: size, channels, neighborhood and boundary.
        rule: what each cell computes.
        steps: steps of a call that does not say.
        backend: ``"auto"``, ``"native"``, ``"cuda"``, ``"triton"`` or ``"reference"``; see
            :func:`cube_kernels.rollout`.
        checkpoint_every: states kept for the backward pass; None: every ``⌈√steps⌉``-th.

    Raises:
        ValueError, TypeError: an unknown backend, or a count below its least.
    """

    filters: Tensor | None
    hidden_weight: Tensor | None
    hidden_bias: Tensor | None
    head_weight: Tensor | None
    head_bias: Tensor | None
    log_time_constant: Tensor | None

    def __init__(
        self,
        lattice: Lattice,
        rule: Rule,
        steps: int,
        backend: str = "auto",
        checkpoint_every: int | None = None,
    ) -> None:
        super().__init__()
        self.lattice, self.rule = lattice, rule
        self.steps = check_positive("CubeLayer", "steps", steps, least=0)
        self.backend: str = check_choice("CubeLayer", "backend", backend, ["auto", *BACKENDS])
        self.checkpoint_every = checkpoint_every
        if checkpoint_every is not None:
            self.checkpoint_every = check_positive("CubeLayer", "checkpoint_every", checkpoint_every)
        shapes = bind(lattice, rule).parameter_shapes
        for name in RuleParameters._fields:
            self.register_parameter(name, nn.Parameter(torch.empty(shapes[name])) if name in shapes else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew from torch's global generator."""
        parameters = self.rule_parameters
        if parameters.filters is not None:
            nn.init.normal_(parameters.filters, std=len(self.lattice.offsets) ** -0.5)
        _, hidden_weight, hidden_bias, head_weight, head_bias, _ = parameters
        if hidden_weight is not None and hidden_bias is not None:
            bound = hidden_weight.shape[1] ** -0.5
            nn.init.uniform_(hidden_weight, -bound, bound)
            nn.init.uniform_(hidden_bias, -bound, bound)
        if head_weight is not None and head_bias is not None:
            small = self.rule.update in ("residual", "gated")
            nn.init.normal_(head_weight, std=0.02 if small else self.rule.hidden**-0.5)
            nn.init.zeros_(head_bias)
            if self.rule.update == "gated":
                nn.init.constant_(head_bias[self.lattice.channels :], -2.0)
        if parameters.log_time_constant is not None:
            nn.init.zeros_(parameters.log_time_constant)

    @property
    def rule_parameters(self) -> RuleParameters:
        """The parameters as :func:`cube_kernels.rollout` takes them."""
        return RuleParameters(
            self.filters,
            self.hidden_weight,
            self.hidden_bias,
            self.head_weight,
            self.head_bias,
            self.log_time_constant,
        )

    @overload
    def forward(
        self,
        x: Tensor,
        drive: Tensor | None = None,
        steps: int | None = None,
        seed: int | None = None,
        write_mask: Tensor | None = None,
        *,
        first_step: int = 0,
        first_sample: int = 0,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        x: Tensor,
        drive: Tensor | None = None,
        steps: int | None = None,
        seed: int | None = None,
        write_mask: Tensor | None = None,
        *,
        trajectory_every: int,
        tolerance: float | None = None,
        first_step: int = 0,
        first_sample: int = 0,
    ) -> Rollout: ...

    @overload
    def forward(
        self,
        x: Tensor,
        drive: Tensor | None = None,
        steps: int | None = None,
        seed: int | None = None,
        write_mask: Tensor | None = None,
        *,
        tolerance: float,
        trajectory_every: None = None,
        first_step: int = 0,
        first_sample: int = 0,
    ) -> Rollout: ...

    @overload
    def forward(
        self,
        x: Tensor,
        drive: Tensor | None = None,
        steps: int | None = None,
        seed: int | None = None,
        write_mask: Tensor | None = None,
        trajectory_every: int | None = None,
        tolerance: float | None = None,
        first_step: int = 0,
        first_sample: int = 0,
    ) -> Tensor | Rollout: ...

    def forward(
        self,
        x: Tensor,
        drive: Tensor | None = None,
        steps: int | None = None,
        seed: int | None = None,
        write_mask: Tensor | None = None,
        trajectory_every: int | None = None,
        tolerance: float | None = None,
        first_step: int = 0,
        first_sample: int = 0,
    ) -> Tensor | Rollout:
        """
        Args:
            x: states ``[B, D, H, W, C]`` in the parameters' dtype and on their device.
            drive: ``[B or 1, D, H, W, rule.drive]`` for a rule that has one.
            steps: steps of this call; None takes the layer's.
            seed, write_mask, first_step, first_sample: see :func:`cube_kernels.rollout`.
            trajectory_every, tolerance: see there, too; they change what is returned.
        """
        return rollout(
            x,
            self.rule_parameters,
            self.lattice,
            self.rule,
            steps=self.steps if steps is None else steps,
            drive=drive,
            write_mask=write_mask,
            seed=seed,
            checkpoint_every=self.checkpoint_every,
            trajectory_every=trajectory_every,
            tolerance=tolerance,
            backend=self.backend,
            first_step=first_step,
            first_sample=first_sample,
        )

    def on(self, shape: tuple[int, int, int]) -> Self:
        """The same rule on a lattice of another shape: a layer that shares this one's parameters, so that either may be
        trained further. What a cell computes does not depend on how many there are.

        Args:
            shape: cells along each axis, ``(D, H, W)``.

        Raises:
            ValueError, TypeError: a shape that is none.

        Example::

            small = rules.growing_nca((1, 40, 40))  # train it
            large = small.on((1, 200, 200))
        """
        lattice = replace(self.lattice, shape=shape)
        layer = type(self)._empty(lattice, self.rule, self.steps, self.backend, self.checkpoint_every)
        for name, parameter in self.named_parameters():
            setattr(layer, name, parameter)
        return layer

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the layer to one file of safetensors, whose metadata has the lattice, the rule and the steps.

        ``backend`` and ``checkpoint_every`` suit a machine and are not kept.

        Raises:
            OSError, safetensors.SafetensorError: the file cannot be written.
        """
        parameters = dict(self.named_parameters())
        constants = [name for name, parameter in parameters.items() if not parameter.requires_grad]
        layer_file.write(path, layer_file.Saved(self.lattice, self.rule, self.steps, parameters, constants))

    @classmethod
    def load(cls, path: str | PathLike[str], shape: tuple[int, int, int] | None = None) -> Self:
        """The layer that :meth:`save` wrote, on the CPU, in the dtype that it had. Loading runs no code of the file.

        Args:
            path: the file.
            shape: another shape of the lattice, as :meth:`on` takes it; None for the saved one.

        Raises:
            ValueError: a file of something else, of another version, or a damaged one.
            FileNotFoundError: there is none.
        """
        saved = layer_file.read(path)
        layer = cls._empty(saved.lattice, saved.rule, saved.steps)
        for name, tensor in saved.tensors.items():
            setattr(layer, name, nn.Parameter(tensor, requires_grad=name not in saved.constants))
        return layer if shape is None else layer.on(shape)

    @classmethod
    def _empty(
        cls, lattice: Lattice, rule: Rule, steps: int, backend: str = "auto", checkpoint_every: int | None = None
    ) -> Self:
        """A layer whose parameters have no values yet; nothing is drawn for them."""
        with torch.device("meta"):
            return cls(lattice, rule, steps, backend, checkpoint_every)

    def extra_repr(self) -> str:
        return f"{self.lattice}, {self.rule}, steps={self.steps}, backend={self.backend!r}"

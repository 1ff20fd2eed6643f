"""A text of token vectors read as one vector: a weighted mean of its tokens, after a lattice has let each see the
others."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cube_kernels.functional import rollout
from cube_kernels.lattice import Lattice
from cube_kernels.layer import CubeLayer
from cube_kernels.precision import agree, wide
from cube_kernels.update_rule import Rule
from cube_kernels.value import check_positive


def _check_text(owner: str, name: str, text: Tensor, width: int, mask: Tensor, parameter: Tensor) -> None:
    """A text ``[B, L, width]`` in the dtype and on the device of a parameter, with its mask."""
    if text.dim() != 3 or text.shape[2] != width:
        raise ValueError(f"{owner}: {name} has shape {list(text.shape)}; it takes [B, L, {width}]")
    if not agree(text, parameter):
        raise TypeError(f"{owner}: {name} is {text.dtype}, but its parameters are {parameter.dtype}")
    if text.device != parameter.device:
        raise ValueError(f"{owner}: {name} is on {text.device}, but its parameters are on {parameter.device}")
    if mask.shape != text.shape[:2]:
        raise ValueError(f"{owner}: mask has shape {list(mask.shape)}; expected {list(text.shape[:2])}")
    if mask.dtype != torch.bool:
        raise TypeError(f"{owner}: mask is {mask.dtype}; it takes torch.bool, True where a token is")
    if mask.device != text.device:
        raise ValueError(f"{owner}: mask is on {mask.device}, but {name} is on {text.device}; they must agree")


class Entered(NamedTuple):
    """What :meth:`TokenReading.enter` computes of each token alone.

    Attributes:
        values: the token vectors, ``[..., dim]``, float32 or float64.
        scale: the root of their mean square, ``[..., 1]``; None without a context.
        entering: what enters the context, ``[..., entering]``; None without one.
    """

    values: Tensor
    scale: Tensor | None
    entering: Tensor | None

    def at(self, rows: Tensor) -> Entered:
        """Of a table ``[N, ...]``, the rows at each place ``[B, L]``, int64."""
        return Entered(*(None if table is None else F.embedding(rows, table) for table in self))  # type: ignore[arg-type]


def _weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """``Σ_t weights_t · values_t``: ``[B, L, 1]`` and ``[B, L, n]`` to ``[B, n]``, in the weights' dtype."""
    with torch.autocast(weights.device.type, enabled=False):  # it would round the sum
        return torch.bmm(weights.transpose(1, 2), values.to(weights.dtype)).squeeze(1)


class TokenReading(nn.Module):
    """``[B, L, dim] → [B, out]``: a text's token vectors are read as one vector, their weighted mean, after a context
    has let each of them see the others.

    ::

        h_t = lift(x_t / rms(x_t))                                 [entering]
        c   = context(h, mask)                                     [leaving]
        y_t = x_t + rms(x_t) · read(c_t)[:dim]
        logit_t = log_weight_t + read(c_t)[dim]
        out = to_output(Σ_t softmax(logit)_t · y_t)

    ``read`` starts at zero and ``to_output`` as the identity (its first rows, if ``out`` is another width), so that an
    untrained reading is exactly the weighted mean; and corrections scale with their tokens, so that it commutes with
    multiplying all tokens by a positive number, but for the bias of ``to_output``.

    Padding contributes nothing, whatever its vectors hold. A text without tokens, and one of length 0, has the mean
    zero, so that its output is the bias of ``to_output``; its gradients are zero. Sums over tokens are taken in
    float32 at least.

    >>> bag = TokenReading(300)
    >>> tokens, mask, weights = torch.randn(3, 10, 300), torch.ones(3, 10, dtype=torch.bool), torch.rand(3, 10)
    >>> bag(tokens, mask, log_weight=weights.log()).shape  # each text's weighted mean
    torch.Size([3, 300])

    Args:
        dim: width of a token vector.
        out: width of the result; None: ``dim``.
        context: a module ``[B, L, entering], mask [B, L] → [B, L, leaving]``; None: the plain weighted mean, without
            lift and read, to which the order of the tokens means nothing. A call with a seed hands it on as a third
            argument.
        entering, leaving: the context's widths; 0 without one.

    Raises:
        ValueError, TypeError: a width below its least, or one that contradicts ``context``.
    """

    def __init__(
        self,
        dim: int,
        out: int | None = None,
        context: nn.Module | None = None,
        entering: int = 0,
        leaving: int = 0,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.dim = dim = check_positive(owner, "dim", dim)
        self.out = dim if out is None else check_positive(owner, "out", out)
        entering, leaving = (
            check_positive(owner, name, width, least=0 if context is None else 1)
            for name, width in (("entering", entering), ("leaving", leaving))
        )
        for name, width in (("entering", entering), ("leaving", leaving)):
            if context is None and width:
                raise ValueError(f"{owner}: {name} is {width}, but there is no context; leave it at 0")
        self.lift = None if context is None else nn.Linear(dim, entering)
        self.context = context
        self.read = None if context is None else nn.Linear(leaving, dim + 1)
        self.to_output = nn.Linear(dim, self.out)
        self._draw()

    def _draw(self) -> None:
        if self.lift is not None and self.read is not None:
            nn.init.normal_(self.lift.weight, std=self.dim**-0.5)
            for zero in (self.lift.bias, self.read.weight, self.read.bias):
                nn.init.zeros_(zero)
        nn.init.eye_(self.to_output.weight)
        nn.init.zeros_(self.to_output.bias)

    def reset_parameters(self) -> None:
        """Draws the parameters anew from torch's global generator, the context's too if it has a method of this name;
        the result is the weighted mean again."""
        self._draw()
        reset = getattr(self.context, "reset_parameters", None)
        if reset is not None:
            reset()

    def forward(
        self, tokens: Tensor, mask: Tensor, log_weight: Tensor | None = None, seed: int | None = None
    ) -> Tensor:
        """
        Args:
            tokens: ``[B, L, dim]`` in the parameters' dtype (under autocast any floating-point one) and on their
                device.
            mask: bool ``[B, L]``, True where a token is, False for padding.
            log_weight: ``[B, L]`` of a floating-point dtype, the logarithm of each token's weight, ``-inf`` for one
                that the mean leaves out; None: all weigh the same.
            seed: for a context that draws, a :class:`TokenLattice` whose rule has a ``fire_rate`` below 1.

        Returns:
            ``[B, out]``.

        Raises:
            ValueError, TypeError: a shape, dtype or device that does not fit, or a seed without a context.
        """
        owner = type(self).__name__
        _check_text(owner, "tokens", tokens, self.dim, mask, self.to_output.weight)
        if log_weight is not None:
            if log_weight.shape != mask.shape:
                raise ValueError(f"{owner}: log_weight has shape {list(log_weight.shape)}; expected {list(mask.shape)}")
            if not log_weight.dtype.is_floating_point:
                raise TypeError(f"{owner}: log_weight is {log_weight.dtype}; it takes a floating-point dtype")
            if log_weight.device != tokens.device:
                raise ValueError(
                    f"{owner}: log_weight is on {log_weight.device}, but tokens is on {tokens.device}; they must agree"
                )
        if seed is not None and self.context is None:
            raise ValueError(f"{owner}: seed is {seed}, but there is no context that draws; pass None")
        # Zeros: padding may hold anything, and zero times NaN is NaN.
        return self.mix(self.enter(tokens.masked_fill(~mask[..., None], 0)), mask, log_weight, seed)

    def enter(self, tokens: Tensor) -> Entered:
        """What is computed of each token alone, the first half of :meth:`forward`. Texts that share tokens can share
        it::

            entered = reading.enter(table)           # [V, dim]
            reading.mix(entered.at(ids), mask)       # ids: [B, L]

        Args:
            tokens: ``[..., dim]``.
        """
        values = wide(tokens)
        if self.lift is None:
            return Entered(values, None, None)
        tiny = torch.finfo(values.dtype).tiny
        mean_square = values.square().mean(dim=-1, keepdim=True)
        # A token of zeros stays one, and is not divided by next to nothing: its gradient would overflow.
        scale = mean_square.clamp_min(tiny).sqrt()
        normalized = values / scale.masked_fill(mean_square <= tiny, 1)
        return Entered(values, scale, self.lift(normalized.to(tokens.dtype)))

    def mix(self, entered: Entered, mask: Tensor, log_weight: Tensor | None = None, seed: int | None = None) -> Tensor:
        """The second half of :meth:`forward`: the context, and the mean.

        Args:
            entered: of ``[B, L, dim]``; finite in padding.
            mask, log_weight, seed: see :meth:`forward`.
        """
        owner = type(self).__name__
        values, scale, entering = entered
        padding = ~mask[..., None]
        logits = values.new_zeros(mask.shape) if log_weight is None else log_weight.to(values.dtype)
        counted = mask if log_weight is None else mask & (logits != -torch.inf)
        leaving: Tensor | None = None
        if self.context is not None and self.read is not None and entering is not None:
            entering = entering.masked_fill(padding, 0)
            leaving = self.context(entering, mask) if seed is None else self.context(entering, mask, seed)
            wanted = (*mask.shape, self.read.in_features)
            if leaving.shape != wanted:
                raise ValueError(f"{owner}: the context returned shape {list(leaving.shape)}; expected {list(wanted)}")
            # What a context leaves in padding may be anything.
            leaving = leaving.masked_fill(padding, 0)
            # A sum: Inductor makes another graph of a product with one column, and autocast would round it.
            logits = logits + (leaving * self.read.weight[self.dim]).sum(dim=2) + self.read.bias[self.dim]
        # Zeros where nothing counts: a softmax over nothing but -inf is NaN, and so is its gradient. Nobody would see
        # them, but anomaly detection stops there.
        logits = logits.masked_fill(~counted, -torch.inf).masked_fill(~counted.any(dim=1, keepdim=True), 0)
        weights = logits.softmax(dim=1).masked_fill(~counted, 0)[..., None]
        mean = _weighted_sum(weights, values)
        if leaving is not None and scale is not None and self.read is not None:
            # What is read of a mean is the mean of what is read, and takes one product a text instead of one a token.
            scaled = weights * scale
            change = F.linear(_weighted_sum(scaled, leaving).to(self.read.weight.dtype), self.read.weight[: self.dim])
            mean = mean + change + scaled.sum(dim=1) * self.read.bias[: self.dim]
        return self.to_output(mean.to(self.to_output.weight.dtype))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, out={self.out}"


@lru_cache(maxsize=256)  # a third of what a call costs beside its rollout
def _along(lattice: Lattice, width: int) -> Lattice:
    return replace(lattice, shape=(*lattice.shape[:2], width))


class TokenLattice(nn.Module):
    """``[B, L, cells·(C + U)] → [B, L, cells·C]``: a rollout over a lattice on which each token of a text has a column
    of ``cells = d·h`` cells, the texts along W.

    What enters for a token is the state of its cells, in the order ``(d, h)``, ``C`` numbers each, and after it, for a
    rule with drive, their drives, ``U`` each, held constant over the steps. The parameters are the rule's, the same for
    texts of any length.

    Padding is zero and never changes, and so is what lies before and after a text, whatever the boundary: the ends of
    a text are walls, and the boundary applies along D and H. So a text has the same result however far it is padded.

    Under ``torch.compile`` and ``torch.export`` every text is padded to the lattice's W, so that one graph serves all
    lengths up to it. A plain call takes texts of any length, and so does ``torch.compile`` without ``fullgraph``, which
    turns to plain calls for longer ones.

    >>> context = TokenLattice(Lattice((2, 2, 64), 8), Rule(hidden=32), steps=4)
    >>> context(torch.randn(3, 10, context.entering), torch.ones(3, 10, dtype=torch.bool)).shape
    torch.Size([3, 10, 32])

    Args:
        lattice: ``(d, h, W)`` cells, ``C`` channels, neighborhood and boundary; its W is the longest text that a
            traced graph takes.
        rule: what each cell computes.
        steps: steps of the rollout; 0 returns the state that enters (the lattice is off).
        backend, checkpoint_every: see :class:`CubeLayer`.

    Raises:
        ValueError, TypeError: see :class:`CubeLayer`.
    """

    def __init__(
        self,
        lattice: Lattice,
        rule: Rule,
        steps: int,
        backend: str = "auto",
        checkpoint_every: int | None = None,
    ) -> None:
        super().__init__()
        self.layer = CubeLayer(lattice, rule, steps, backend, checkpoint_every)
        self.lattice, self.cells = lattice, lattice.shape[0] * lattice.shape[1]
        self.entering = self.cells * (lattice.channels + rule.drive)
        self.leaving = self.cells * lattice.channels
        # Columns of padding before and after every text, so that no boundary reaches it along W. Walls need none: they
        # read as zero, as padding does. But padding is alive where the threshold is below zero, and a wall never.
        padding_lives = rule.alive is not None and rule.alive.threshold < 0
        self.margin = 0 if lattice.boundary == "walls" and not padding_lives else lattice.reach[2]
        if lattice.boundary == "absorbing":
            self.margin = max(self.margin, lattice.sponge_width)
        self._traced = self._lattice(lattice.shape[2])

    def reset_parameters(self) -> None:
        """Draws the parameters anew from torch's global generator."""
        self.layer.reset_parameters()

    def forward(self, h: Tensor, mask: Tensor, seed: int | None = None) -> Tensor:
        """
        Args:
            h: ``[B, L, entering]`` in the parameters' dtype (under autocast any floating-point one) and on their
                device.
            mask: bool ``[B, L]``, True where a token is, False for padding.
            seed: of the fire mask; see :func:`cube_kernels.rollout`. Its draws count cells, padding included, so they
                are others in a batch that is padded further, and in a traced graph.

        Returns:
            ``[B, L, leaving]``, zero in padding.

        Raises:
            ValueError, TypeError: a shape, dtype or device that does not fit; a traced graph that is longer than the
                lattice; a rule that takes a seed without one.
        """
        # A stencil of fixed filters alone has no parameters.
        _check_text("TokenLattice", "h", h, self.entering, mask, next(self.layer.parameters(), h))
        length, longest = mask.shape[1], self.lattice.shape[2]
        if torch.jit.is_tracing():  # a number of such a trace is a tensor, and a lattice takes none: one length a trace
            length = int(length)
        if torch.compiler.is_compiling():
            if length > longest:
                # int: an export's own name for a length says nothing.
                raise ValueError(
                    f"TokenLattice: the text has {int(length)} tokens; a traced graph takes at most {longest}, the "
                    "lattice's W"
                )
            lattice = self._traced
        else:
            lattice = self._lattice(max(length, 1))
        before, after = self.margin, lattice.shape[2] - self.margin - length
        state = F.pad(h.masked_fill(~mask[..., None], 0), (0, 0, before, after))
        drive = None
        if self.layer.rule.drive:
            drive = self._columns(state[..., self.leaving :])
            state = state[..., : self.leaving]
        depth, height, _ = lattice.shape
        written = F.pad(mask, (before, after))[:, None, None].expand(-1, depth, height, -1)
        state = rollout(
            self._columns(state),
            self.layer.rule_parameters,
            lattice,
            self.layer.rule,
            steps=self.layer.steps,
            drive=drive,
            write_mask=written,
            seed=seed,
            checkpoint_every=self.layer.checkpoint_every,
            backend=self.layer.backend,
        )
        # Not a slice, which compilers take for another graph where it is the whole.
        return F.pad(state, (0, 0, -before, -after)).movedim(3, 1).flatten(2)

    def _lattice(self, length: int) -> Lattice:
        """For texts of this length."""
        return _along(self.lattice, length + 2 * self.margin)

    def _columns(self, text: Tensor) -> Tensor:
        """``[B, W, cells·n]`` to ``[B, D, H, W, n]``."""
        return text.unflatten(2, (*self.lattice.shape[:2], -1)).movedim(1, 3)

    def extra_repr(self) -> str:
        return f"entering={self.entering}, leaving={self.leaving}"


class TokenCube(TokenReading):
    """``[B, L, dim] → [B, out]``: a :class:`TokenReading` whose context is a :class:`TokenLattice`.

    >>> cube = TokenCube(300, Lattice((2, 2, 64), 8), Rule(hidden=32), steps=4)
    >>> cube(torch.randn(3, 10, 300), torch.ones(3, 10, dtype=torch.bool)).shape
    torch.Size([3, 300])

    Args:
        dim, out: see :class:`TokenReading`.
        lattice, rule, steps, backend, checkpoint_every: see :class:`TokenLattice`.

    Raises:
        ValueError, TypeError: see there.
    """

    def __init__(
        self,
        dim: int,
        lattice: Lattice,
        rule: Rule,
        steps: int,
        out: int | None = None,
        backend: str = "auto",
        checkpoint_every: int | None = None,
    ) -> None:
        context = TokenLattice(lattice, rule, steps, backend, checkpoint_every)
        super().__init__(dim, out, context, context.entering, context.leaving)

"""The rule in CAX (cellular automata in JAX): a ComplexSystem of a Perceive and an Update, scanned and jitted.

CAX's own classes compute it as convolutions: ConvPerceive, and ResidualUpdate with kernels of size one. XLA runs
those many times slower on the CPU, above all backward, than the same in slices and products; so that the peer is one
to be proud of beating, its Perceive adds shifted slices and its Update is two flax ``Linear``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch
from cax.core.cs import ComplexSystem
from cax.core.perceive import Perceive
from cax.core.update import Update
from flax import nnx
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers import Program


class ShiftPerceive(Perceive):
    def __init__(self, filters, offsets):
        self.filters, self.offsets = nnx.Param(filters), offsets

    def __call__(self, state):
        _, depth, height, width, _ = state.shape
        padded = jnp.pad(state, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
        near = [
            padded[:, 1 + d : 1 + d + depth, 1 + h : 1 + h + height, 1 + w : 1 + w + width] for d, h, w in self.offsets
        ]
        percepts = [sum(tap * n for tap, n in zip(taps, near, strict=True)) for taps in self.filters[...]]
        return jnp.concatenate([state, *percepts], axis=-1)


class LinearUpdate(Update):
    def __init__(self, step_size, hidden_weight, hidden_bias, head_weight, head_bias):
        self.step_size = step_size
        self.hidden, self.head = (
            self.linear(*pair) for pair in ((hidden_weight, hidden_bias), (head_weight, head_bias))
        )

    @staticmethod
    def linear(weight, bias):
        layer = nnx.Linear(*weight.T.shape, dtype=weight.dtype, param_dtype=weight.dtype, rngs=nnx.Rngs(0))
        layer.kernel, layer.bias = nnx.Param(weight.T), nnx.Param(bias)
        return layer

    def __call__(self, state, perception, input=None):
        return state + self.step_size * self.head(nnx.relu(self.hidden(perception)))


class Automaton(ComplexSystem):
    def __init__(self, perceive, update):
        self.perceive, self.update = perceive, update

    def _step(self, state, input=None, *, sow=False):
        return self.update(state, self.perceive(state), input)


def _to_jax(tensor: Tensor) -> jax.Array:
    return jnp.asarray(tensor.float().numpy(), dtype=str(tensor.dtype).removeprefix("torch."))


def program(case: Case) -> Program:
    problem = case.problem()
    x, parameters = _to_jax(problem.x), [_to_jax(p) for p in problem.tensors.values()]

    def rollout(x, parameters):
        filters, *layers = parameters
        perception = ShiftPerceive(filters, problem.lattice.offsets)
        automaton = Automaton(perception, LinearUpdate(problem.rule.step_size, *layers))
        return automaton(x, num_steps=problem.steps)

    def loss(x, parameters):
        return jnp.square(rollout(x, parameters)).mean()

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)) if case.backward else rollout)

    def read(results) -> list[Tensor]:
        arrays = jax.tree.leaves(results[1] if case.backward else results)
        return [torch.tensor(np.asarray(array, dtype=np.float32)) for array in arrays]

    return Program(lambda: jax.block_until_ready(compiled(x, parameters)), read)

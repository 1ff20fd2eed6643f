"""The one place that decides which backend runs a call.

Each backend is a module with a predicate ``why_not``, which returns None or the reason it cannot. The same
predicate serves the automatic choice, a forced choice and ``python -m cube_kernels.info``.
"""

from __future__ import annotations

import os

import torch

from cube_kernels.backends import cuda, native, reference, triton
from cube_kernels.backends.contract import Backend, BackendError, Kernels
from cube_kernels.lattice import Lattice
from cube_kernels.update_rule import Rule
from cube_kernels.value import check_choice

KERNELS: dict[str, Kernels] = {native.name: native, cuda.name: cuda, triton.name: triton}

BACKENDS: dict[str, Backend] = {**KERNELS, reference.name: reference}
"""Every backend by name, in the order in which the automatic choice tries them."""

OWN = tuple(BACKENDS.values())

ON_CPU: tuple[Backend, ...] = (native, reference)
"""The same for CPU tensors: there a backend for GPUs runs in an interpreter or a simulator, for those who ask."""

BACKEND_VARIABLE = "CUBE_KERNELS_BACKEND"


def register_backend(kernels: Kernels) -> None:
    """Makes a backend of one's own known, for calls that name it. The automatic choice stays among those that ship.

    Args:
        kernels: a module or an object as :class:`cube_kernels.backends.contract.Kernels` says.

    Raises:
        ValueError: its name is taken.
    """
    if kernels.name in BACKENDS or kernels.name == "auto":
        raise ValueError(
            f"register_backend: the name {kernels.name!r} is taken; taken: 'auto', {', '.join(map(repr, BACKENDS))}"
        )
    KERNELS[kernels.name] = BACKENDS[kernels.name] = kernels


def choose(backend: str, lattice: Lattice, rule: Rule | None, dtype: torch.dtype, device: torch.device) -> Backend:
    """The backend for such a call (perception alone if there is no rule): the first that can for ``"auto"``, unless
    ``CUBE_KERNELS_BACKEND`` names one; otherwise the named one.

    Raises:
        ValueError: an unknown name.
        BackendError: the named backend cannot run the call.
    """
    owner, source = "cube_kernels", "backend"
    if backend == "auto":
        backend, source = os.environ.get(BACKEND_VARIABLE, "auto"), BACKEND_VARIABLE
    if backend == "auto":
        candidates = ON_CPU if device.type == "cpu" else OWN
        for candidate in candidates:  # the last runs everything
            if candidate.why_not(lattice, rule, dtype, device) is None:
                return candidate
    if backend not in BACKENDS:
        check_choice(owner, source, backend, ["auto", *BACKENDS])
    chosen = BACKENDS[backend]
    reason = chosen.why_not(lattice, rule, dtype, device)
    if reason is not None:
        raise BackendError(f"{owner}: {source} is {backend!r}, but it cannot run this call: {reason}")
    return chosen

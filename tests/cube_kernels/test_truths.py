"""Truths about perception that need no other implementation: shifted slices, adjoints, filters."""

import numpy as np
import pytest
import torch

from cube_kernels import Lattice, fixed_filters, perceive
from cube_kernels.lattice import BOUNDARIES, NEIGHBORHOODS
from tests.conftest import PADDING

BACKENDS = ["native", "reference"]


def check_faces(boundary: str, axis: int, distance: int, dtype: torch.dtype, backend: str) -> None:
    """One neighbor along the axis in each direction is numpy's padded slice."""
    shape = (3, 4, 5)
    x = torch.randn(1, *shape, 1, dtype=dtype)
    padded = np.pad(x[0, ..., 0].numpy(), distance, mode=PADDING[boundary])
    for shift in (-distance, distance):
        offset = tuple(shift if a == axis else 0 for a in range(3))
        lattice = Lattice(shape, 1, (offset,), boundary=boundary)
        window = tuple(slice(distance + o, distance + o + n) for o, n in zip(offset, shape, strict=True))
        assert np.array_equal(perceive(x, lattice, backend=backend)[0, ..., 0].numpy(), padded[window])


def check_transposes(lattice: Lattice, filters: int | None, dtype: torch.dtype, backend: str, tolerance: float) -> None:
    """⟨P x, y⟩ = ⟨x, Pᵀ y⟩ = ⟨w, ∂⟨P x, y⟩/∂w⟩: perception is linear in the state and in the filters."""
    tensors = [torch.randn(2, *lattice.state_shape, dtype=dtype, requires_grad=True)]
    if filters is not None:
        bank = torch.randn(filters, len(lattice.offsets), lattice.channels, dtype=dtype, requires_grad=True)
        tensors.append(bank)
    seen = perceive(*tensors[:1], lattice, *tensors[1:], backend=backend)
    y = torch.randn_like(seen)
    for tensor, gradient in zip(tensors, torch.autograd.grad(seen, tensors, y), strict=True):
        torch.testing.assert_close((seen * y).sum(), (tensor * gradient).sum(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("distance", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_face_reads_what_its_boundary_says(boundary, axis, distance, backend):
    check_faces(boundary, axis, distance, torch.float64, backend)


@pytest.mark.parametrize("neighborhood", [*NEIGHBORHOODS, ((1, -1, 2), (0, 0, 0), (0, 3, 0))], ids=str)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("filters", [None, 1, 6])
@pytest.mark.parametrize("backend", BACKENDS)
def test_perception_its_adjoint_and_its_filter_gradient_agree(neighborhood, boundary, filters, backend):
    lattice = Lattice((3, 2, 7), 3, neighborhood, boundary=boundary)
    check_transposes(lattice, filters, torch.float64, backend, 1e-12)


def test_fixed_filters_are_exact_on_polynomials():
    """Away from the faces, Sobel gives the slope of a linear state and the Laplacian twice the sum of a quadratic
    state's coefficients, in space and in the plane."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(5.0, dtype=torch.float64),) * 3, indexing="ij"))
    linear = (grid * torch.tensor([2.0, 3.0, 5.0]).view(3, 1, 1, 1)).sum(0)
    quadratic = (grid**2 * torch.tensor([2.0, 3.0, 5.0]).view(3, 1, 1, 1)).sum(0)
    inner = (0, 2, 2, 2)
    for neighborhood, slopes, curvature in (("moore", (2, 3, 5), 20), ("moore_2d", (None, 3, 5), 16)):
        lattice = Lattice((5, 5, 5), 1, neighborhood)
        for axis, slope in zip("dhw", slopes, strict=True):
            if slope is not None:
                bank = fixed_filters((f"sobel_{axis}",), lattice, torch.float64)
                torch.testing.assert_close(perceive(linear[None, ..., None], lattice, bank)[inner].item(), float(slope))
        bank = fixed_filters(("laplacian", "identity"), lattice, torch.float64)
        seen = perceive(quadratic[None, ..., None], lattice, bank)[inner]
        torch.testing.assert_close(seen.tolist(), [float(curvature), quadratic[2, 2, 2].item()])


def test_a_fixed_filter_without_its_taps_is_refused():
    with pytest.raises(ValueError, match=r"'sobel_w' has a tap at .* 'von_neumann' lacks"):
        fixed_filters(("sobel_w",), Lattice((3, 3, 3), 1))
    with pytest.raises(ValueError, match="'sobel_x'; valid: 'identity', 'sobel_d'"):
        fixed_filters(("sobel_x",), Lattice((3, 3, 3), 1, "moore"))

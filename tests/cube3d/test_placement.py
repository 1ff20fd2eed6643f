"""The learned placement: correlated dimensions lie on one cell, or on near ones; it is of the training part alone and
saved with the model."""

import pytest
import torch

from cube3d.config import TrainingSettings
from cube3d.model import CubeConfig, CubeModel, load_model
from cube3d.placement import correlation_order
from cube3d.training.trainer import fit
from tests.cube3d.conftest import DIM


def permuted(vectors):
    order = torch.randperm(vectors.shape[1], generator=torch.Generator().manual_seed(4))
    return vectors[:, order], order


def test_dimensions_that_go_together_share_a_cell():
    """Twelve factors, each behind four dimensions, with either sign."""
    generator = torch.Generator().manual_seed(1)
    factors = torch.randn(500, 12, generator=generator).repeat_interleave(4, dim=1)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).repeat(12)
    vectors, order = permuted(factors * signs + 0.3 * torch.randn(500, 48, generator=generator))
    factor_of = order // 4
    cells = factor_of[correlation_order(vectors, (2, 2, 3))].view(12, 4)
    assert (cells == cells[:, :1]).all()
    assert sorted(cells[:, 0].tolist()) == list(range(12))


def test_a_chain_of_dimensions_is_laid_out_along_the_lattice():
    """Each dimension goes with the next ones: the order comes back, from one end or the other."""
    generator = torch.Generator().manual_seed(2)
    steps = torch.randn(4000, 24, generator=generator)
    chain = torch.stack([steps[:, max(0, i - 6) : i + 1].sum(1) for i in range(24)], dim=1)
    vectors, order = permuted(chain)
    found = order[correlation_order(vectors, (1, 1, 4))].view(4, 6).float().mean(1)
    assert torch.equal(found, found.sort().values) or torch.equal(found, found.sort(descending=True).values)


def test_a_constant_dimension_is_placed_like_any_other():
    vectors = torch.randn(50, 8, generator=torch.Generator().manual_seed(3))
    vectors[:, 3] = 2.0
    assert correlation_order(vectors, (2, 2, 2)).sort().values.tolist() == list(range(8))


CUBE = {"shape": [2, 2, 2], "channels": 4, "hidden": 8, "steps": 2, "lift": "per_cell"}


@pytest.mark.parametrize("regions", [{}, {"input": "front", "output": "back"}], ids=["volume", "face to face"])
def test_a_run_places_by_its_training_part_and_saves_the_order(regions, parts, tmp_path):
    torch.manual_seed(0)
    model = CubeModel(CubeConfig(dim=DIM, cube={**CUBE, **regions, "placement": "correlation"}))
    settings = TrainingSettings(epochs=3, batch_size=24)
    trained = fit(model, parts.train, parts.validation, settings, tmp_path / "training", seed=0)
    assert all(check.passed for check in trained.checks)
    train = torch.cat([parts.train.question, parts.train.bank])
    expected = correlation_order(train, (1, 2, 2) if regions else (2, 2, 2))
    assert torch.equal(model.mapping.order, expected)
    assert not torch.equal(expected, torch.arange(DIM))
    model.save(tmp_path / "model")
    loaded = load_model(CubeModel, tmp_path / "model")
    assert torch.equal(loaded.mapping.order, expected)
    assert torch.equal(loaded.predict(parts.test), model.predict(parts.test))

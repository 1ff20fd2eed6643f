"""Losses against plain numpy, their gradients, and their weighted sum."""

import math

import numpy as np
import pytest
import torch
from torch.func import functional_call

from cube3d.config import LossSettings
from cube3d.losses import CosineLoss, InfoNCELoss, Objective

TEMPERATURE = 0.3


@pytest.fixture
def batch():
    """Prediction and answer ``[6, 5]`` of different lengths, float64, and the groups."""
    generator = torch.Generator().manual_seed(1)
    prediction = torch.randn(6, 5, generator=generator, dtype=torch.float64) * 3
    answer = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    return prediction, answer, torch.tensor([7, 3, 7, 1, 0, 3])


@pytest.fixture
def info_nce():
    """In float64, its temperature to the last bit."""
    loss = InfoNCELoss(TEMPERATURE).double()
    torch.nn.init.constant_(loss.log_temperature, math.log(TEMPERATURE))
    return loss


def cosine_by_hand(p, a):
    return float(np.dot(p, a) / (np.sqrt(np.dot(p, p)) * np.sqrt(np.dot(a, a))))


def info_nce_by_hand(prediction, answer, group, temperature):
    """Row by row: the negatives are the answers of other groups."""
    losses = []
    for i in range(len(group)):
        own = np.exp(cosine_by_hand(prediction[i], answer[i]) / temperature)
        others = [
            np.exp(cosine_by_hand(prediction[i], answer[j]) / temperature)
            for j in range(len(group))
            if group[j] != group[i]
        ]
        losses.append(-np.log(own / (own + sum(others))))
    return float(np.mean(losses))


def test_cosine_loss_is_one_minus_the_mean_cosine(batch):
    prediction, answer, group = batch
    expected = 1 - np.mean([cosine_by_hand(p, a) for p, a in zip(prediction.numpy(), answer.numpy(), strict=True)])
    assert CosineLoss()(prediction, answer, group).item() == pytest.approx(expected, abs=1e-12)


def test_cosine_loss_goes_from_0_for_the_same_direction_to_2_for_the_opposite(batch):
    _, answer, group = batch
    assert CosineLoss()(3 * answer, answer, group).item() == pytest.approx(0, abs=1e-12)
    assert CosineLoss()(-answer, answer, group).item() == pytest.approx(2, abs=1e-12)


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4, 5], [7, 3, 7, 1, 0, 3], [2, 2, 2, 2, 2, 5]])
def test_info_nce_is_what_a_loop_gives_and_leaves_out_answers_of_the_same_group(batch, info_nce, groups):
    prediction, answer, _ = batch
    expected = info_nce_by_hand(prediction.numpy(), answer.numpy(), groups, TEMPERATURE)
    assert info_nce(prediction, answer, torch.tensor(groups)).item() == pytest.approx(expected, abs=1e-12)


def test_info_nce_of_two_rows_of_one_group_and_one_other_by_hand(info_nce):
    """Rows 0 and 1 share a group: each has one negative, at a right angle; row 2 has two."""
    axes = torch.eye(2, dtype=torch.float64)
    rows = axes[[0, 0, 1]]
    loss = info_nce(rows, rows, torch.tensor([4, 4, 9]))
    near, far = np.exp(1 / TEMPERATURE), 1.0
    by_hand = -(2 * np.log(near / (near + far)) + np.log(near / (near + 2 * far))) / 3
    assert loss.item() == pytest.approx(by_hand, abs=1e-12)


def test_info_nce_of_one_group_alone_is_zero(batch, info_nce):
    prediction, answer, group = batch
    assert info_nce(prediction, answer, torch.zeros_like(group)).item() == 0


def test_info_nce_starts_at_the_temperature_given_and_learns_it(batch):
    loss = InfoNCELoss(TEMPERATURE)
    assert loss.log_temperature.exp().item() == pytest.approx(TEMPERATURE, rel=1e-6)
    loss(*batch).backward()
    assert loss.log_temperature.grad.item() != 0


def test_gradient_of_the_cosine_loss(batch):
    prediction, answer, group = batch
    loss = CosineLoss().double()
    inputs = prediction.requires_grad_(), answer.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, a: loss(p, a, group), inputs)


def test_gradient_of_info_nce_with_same_group_answers_left_out(batch, info_nce):
    """To prediction, answer and temperature."""
    prediction, answer, group = batch
    temperature = info_nce.log_temperature.detach().clone().requires_grad_()

    def loss(p, a, t):
        return functional_call(info_nce, {"log_temperature": t}, (p, a, group))

    assert torch.autograd.gradcheck(loss, (prediction.requires_grad_(), answer.requires_grad_(), temperature))


def test_objective_is_the_weighted_sum_of_its_parts(batch):
    prediction, answer, group = batch
    objective = Objective(LossSettings(cosine=0.25, info_nce=3.0, temperature=TEMPERATURE)).double()
    total, parts = objective(*batch)
    assert set(parts) == {"cosine", "info_nce"}
    assert parts["cosine"].item() == pytest.approx(CosineLoss()(*batch).item(), abs=1e-12)
    by_hand = info_nce_by_hand(prediction.numpy(), answer.numpy(), group.tolist(), TEMPERATURE)
    assert parts["info_nce"].item() == pytest.approx(by_hand, abs=1e-6)
    assert total.item() == pytest.approx(0.25 * parts["cosine"].item() + 3 * parts["info_nce"].item(), abs=1e-12)


@pytest.mark.parametrize(("off", "on", "parameters"), [("cosine", "info_nce", 1), ("info_nce", "cosine", 0)])
def test_loss_of_weight_zero_is_absent(batch, off, on, parameters):
    """It is neither computed nor does it leave a parameter that gets no gradient."""
    objective = Objective(LossSettings(**{off: 0.0, on: 2.0}, temperature=TEMPERATURE)).double()
    total, parts = objective(*batch)
    assert set(parts) == {on}
    assert total.item() == pytest.approx(2 * parts[on].item(), abs=1e-12)
    assert len(list(objective.parameters())) == parameters

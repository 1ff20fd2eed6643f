"""Losses against plain loops, their gradients, and their weighted sum."""

import inspect
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from cube3d.config import LOSS_NAMES, LossSettings, NegativeSettings, load_settings
from cube3d.errors import UserError
from cube3d.losses import (
    Batch,
    CosineLoss,
    DiversityLoss,
    InfoNCELoss,
    MSELoss,
    Objective,
    RelationalDistillationLoss,
    TripletLoss,
)
from cube3d.losses.objective import LOSSES
from cube3d.model import CubeConfig, CubeModel

TEMPERATURE = 0.3
MARGIN = 0.7
GROUPS = [7, 3, 7, 1, 0, 3]
IN_BATCH = NegativeSettings(pool="batch")


def batch_of(prediction, answer, group=GROUPS, counted=None):
    """In-batch negatives: the answers of other groups."""
    group = torch.tensor(group)
    return Batch(
        prediction,
        answer,
        group,
        positive=F.cosine_similarity(prediction, answer, dim=-1),
        similarity=F.cosine_similarity(prediction[:, None], answer[None], dim=-1),
        negative=group[:, None] != group,
        counted=torch.ones(len(group), dtype=torch.bool) if counted is None else torch.tensor(counted),
    )


@pytest.fixture
def vectors():
    """Prediction and answer ``[6, 5]`` of different lengths, float64."""
    generator = torch.Generator().manual_seed(1)
    prediction = torch.randn(6, 5, generator=generator, dtype=torch.float64) * 3
    return prediction, torch.randn(6, 5, generator=generator, dtype=torch.float64)


def info_nce(temperature=TEMPERATURE):
    """In float64, its temperature to the last bit."""
    loss = InfoNCELoss(temperature, learned=True).double()
    torch.nn.init.constant_(loss.log_temperature, math.log(temperature))
    return loss


def cosine(p, a):
    return float(np.dot(p, a) / (np.sqrt(np.dot(p, p)) * np.sqrt(np.dot(a, a))))


# What each loss is, row by row in numpy: p and a are all predictions and answers, n the rows that are negatives of i.


def cosine_row(i, p, a, n):
    return 1 - cosine(p[i], a[i])


def mse_row(i, p, a, n):
    return sum((x - y) ** 2 for x, y in zip(p[i], a[i], strict=True))


def triplet_row(i, p, a, n):
    return np.mean([max(0, cosine(p[i], a[j]) - cosine(p[i], a[i]) + MARGIN) for j in n]) if n else 0


def info_nce_row(i, p, a, n):
    own = np.exp(cosine(p[i], a[i]) / TEMPERATURE)
    return -np.log(own / (own + sum(np.exp(cosine(p[i], a[j]) / TEMPERATURE) for j in n)))


def distillation_row(i, p, a, n):
    def distribution(v):
        weights = np.array([np.exp(cosine(v[i], v[j]) / 3) for j in range(len(v)) if j != i])
        return weights / weights.sum()

    teacher, student = distribution(a), distribution(p)
    return 9 * np.sum(teacher * np.log(teacher / student))


ROWS = [
    (CosineLoss(), cosine_row),
    (MSELoss(), mse_row),
    (TripletLoss(MARGIN), triplet_row),
    (info_nce(), info_nce_row),
    (RelationalDistillationLoss(3.0), distillation_row),
]


def name_of(value):
    return type(value).__name__ if isinstance(value, torch.nn.Module) else ""


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4, 5], GROUPS, [2, 2, 2, 2, 2, 5], [4, 4, 4, 4, 4, 4]], ids=str)
@pytest.mark.parametrize("counted", [[True] * 6, [True, False, True, True, False, False]], ids=["all", "some"])
@pytest.mark.parametrize(("loss", "row"), ROWS, ids=name_of)
def test_a_loss_is_the_mean_over_the_counted_rows_of_what_a_loop_gives(loss, row, counted, groups, vectors):
    p, a = (v.numpy() for v in vectors)
    negatives = [[j for j in range(6) if groups[j] != groups[i]] for i in range(6)]
    expected = np.mean([row(i, p, a, negatives[i]) for i in range(6) if counted[i]])
    assert loss(batch_of(*vectors, groups, counted)).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4, 5], GROUPS])
def test_diversity_is_what_a_loop_over_pairs_of_different_groups_gives(groups, vectors):
    p = vectors[0].numpy()
    cosines = [cosine(p[i], p[j]) for i in range(6) for j in range(6) if groups[i] != groups[j]]
    expected = np.mean(cosines) ** 2 + max(0, np.mean(np.square(cosines)) - 1 / 5)
    assert DiversityLoss()(batch_of(*vectors, groups)).item() == pytest.approx(expected, abs=1e-12)


def test_diversity_is_0_for_right_angles_and_nearly_2_for_collapsed_predictions():
    axes = torch.eye(4, dtype=torch.float64)
    assert DiversityLoss()(batch_of(axes, axes, [0, 1, 2, 3])).item() == pytest.approx(0, abs=1e-12)
    collapsed = axes[[1] * 4]
    assert DiversityLoss()(batch_of(collapsed, axes, [0, 1, 2, 3])).item() == pytest.approx(2 - 1 / 4, abs=1e-12)


def test_cosine_loss_goes_from_0_for_the_same_direction_to_2_for_the_opposite(vectors):
    _, answer = vectors
    assert CosineLoss()(batch_of(3 * answer, answer)).item() == pytest.approx(0, abs=1e-12)
    assert CosineLoss()(batch_of(-answer, answer)).item() == pytest.approx(2, abs=1e-12)


def test_distillation_is_0_where_predictions_are_a_rotation_of_the_answers_and_not_where_they_are_not(vectors):
    prediction, answer = vectors
    rotation = torch.linalg.qr(prediction[:5]).Q
    loss = RelationalDistillationLoss(3.0)
    assert loss(batch_of(2 * answer @ rotation, answer)).item() == pytest.approx(0, abs=1e-12)
    assert loss(batch_of(prediction, answer)).item() > 1e-3


@pytest.mark.parametrize("loss", [loss for loss, _ in ROWS] + [DiversityLoss()], ids=name_of)
def test_no_counted_row_no_negative_or_a_single_row_is_a_finite_loss(loss, vectors):
    """The last batch of an epoch may be any of these."""
    for rows, groups, counted in ((6, GROUPS, [False] * 6), (6, [2] * 6, [True] * 6), (1, [2], [True])):
        prediction = vectors[0][:rows].clone().requires_grad_()
        value = loss(batch_of(prediction, vectors[1][:rows], groups, counted))
        value.backward()
        assert value.isfinite()
        assert prediction.grad.isfinite().all()


def test_info_nce_of_two_rows_of_one_group_and_one_other_by_hand():
    """Rows 0 and 1 share a group: each has one negative, at a right angle; row 2 has two."""
    axes = torch.eye(2, dtype=torch.float64)
    rows = axes[[0, 0, 1]]
    near, far = np.exp(1 / TEMPERATURE), 1.0
    by_hand = -(2 * np.log(near / (near + far)) + np.log(near / (near + 2 * far))) / 3
    assert info_nce()(batch_of(rows, rows, [4, 4, 9])).item() == pytest.approx(by_hand, abs=1e-12)


def test_a_fixed_temperature_is_the_one_given_and_no_parameter(vectors):
    fixed = InfoNCELoss(TEMPERATURE)
    assert not list(fixed.parameters())
    assert fixed(batch_of(*vectors)).item() == pytest.approx(info_nce()(batch_of(*vectors)).item(), rel=1e-12)


def test_info_nce_starts_at_the_temperature_given_and_learns_it(vectors):
    loss = InfoNCELoss(TEMPERATURE, learned=True)
    assert loss.log_temperature.exp().item() == pytest.approx(TEMPERATURE, rel=1e-6)
    loss(batch_of(*vectors)).backward()
    assert loss.log_temperature.grad.item() != 0
    assert loss.log_temperature.grad.isfinite()


@pytest.mark.parametrize("loss", [loss for loss, _ in ROWS] + [DiversityLoss()], ids=name_of)
def test_gradients(loss, vectors):
    """To prediction, answer and what the loss learns, by finite differences; same-group answers are left out."""
    names = [name for name, _ in loss.named_parameters()]
    learned = [parameter.detach().clone().requires_grad_() for parameter in loss.parameters()]

    def of(prediction, answer, *values):
        return functional_call(loss, dict(zip(names, values, strict=True)), (batch_of(prediction, answer),))

    assert torch.autograd.gradcheck(of, (*(v.clone().requires_grad_() for v in vectors), *learned))


# The weighted sum


def test_each_loss_has_a_weight_and_each_weight_a_loss():
    assert set(LOSSES) == set(LOSS_NAMES) <= set(LossSettings.model_fields)


def settings(**given):
    weights = dict.fromkeys(LOSS_NAMES, 0.0)
    return LossSettings(**{**weights, "temperature": TEMPERATURE, "negatives": IN_BATCH, **given})


def test_objective_is_the_weighted_sum_of_its_parts(vectors):
    weights = {name: 0.25 * (i + 1) for i, name in enumerate(LOSS_NAMES)}
    objective = Objective(settings(**weights, margin=MARGIN), dim=5).double()
    total, parts = objective(*vectors, torch.tensor(GROUPS))
    assert set(parts) == set(LOSS_NAMES)
    batch = batch_of(*vectors)
    for name, loss in {
        "cosine": CosineLoss(),
        "mse": MSELoss(),
        "triplet": TripletLoss(MARGIN),
        "info_nce": info_nce(),
        "diversity": DiversityLoss(),
        "distillation": RelationalDistillationLoss(3.0),
    }.items():
        assert parts[name].item() == pytest.approx(loss(batch).item(), rel=1e-6), name
    expected = sum(weights[name] * parts[name].item() for name in LOSS_NAMES)
    assert total.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_one_loss_alone_leaves_the_others_absent(name, vectors):
    """They are neither computed, nor do they leave a parameter that gets no gradient."""
    objective = Objective(settings(**{name: 2.0}, learn_temperature=True), dim=5).double()
    total, parts = objective(*vectors, torch.tensor(GROUPS))
    assert set(parts) == {name}
    assert total.item() == pytest.approx(2 * parts[name].item(), abs=1e-12)
    assert len(list(objective.parameters())) == (name == "info_nce")


def test_losses_are_computed_in_float32_under_autocast(vectors):
    prediction, answer = (v.float() for v in vectors)
    objective = Objective(settings(cosine=1.0, info_nce=1.0), dim=5)
    plain, _ = objective(prediction, answer, torch.tensor(GROUPS))
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = objective(prediction, answer, torch.tensor(GROUPS))
        assert (prediction @ answer.T).dtype == torch.bfloat16, "autocast is on"
    assert torch.equal(plain, mixed)


def test_a_loss_that_is_not_one_is_refused_with_the_names_of_those_that_are():
    with pytest.raises(UserError) as caught:
        load_settings(None, ["loss.contrastive=1"])
    assert "unknown key 'contrastive' in loss" in str(caught.value)
    assert all(name in str(caught.value) for name in LOSS_NAMES)


def test_the_models_forward_takes_everything_that_the_objective_takes():
    objective = list(inspect.signature(Objective.forward).parameters)
    model = list(inspect.signature(CubeModel.complete).parameters)
    assert objective == ["self", "prediction", "answer", *model[3:]]
    assert CubeConfig(loss={"mse": 1.0}).loss["mse"] == 1.0

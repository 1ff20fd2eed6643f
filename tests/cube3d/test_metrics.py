"""Metrics against brute force."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cube3d.metrics import METRICS, anisotropy, effective_dimensions, per_question, ranks
from cube3d.pairs import Pair
from cube3d.vectors import Part


def make_part(bank, bank_group, group, answer=None):
    """A part of questions whose own vectors do not matter."""
    bank, bank_group, group = map(torch.as_tensor, (bank, bank_group, group))
    if answer is None:
        answer = torch.stack([bank[(bank_group == g).nonzero()[0, 0]] for g in group])
    pairs = [Pair(f"q{i}", "a", "made:1") for i in range(len(group))]
    text = [f"answer {i}" for i in range(len(bank))]
    return Part(pairs, [pair.prompt for pair in pairs], torch.zeros_like(answer), answer, group, bank, bank_group, text)


def ranks_by_hand(prediction, bank, bank_group, group):
    """The places at which the own group's best answer may stand among the others', averaged."""
    found = []
    for p, own_group in zip(prediction, group, strict=True):
        cosines = [round(float(p @ b / np.sqrt((p @ p) * (b @ b))), 12) for b in bank]
        own = max(c for c, g in zip(cosines, bank_group, strict=True) if g == own_group)
        others = [c for c, g in zip(cosines, bank_group, strict=True) if g != own_group]
        first = 1 + sum(c > own for c in others)
        last = first + sum(c == own for c in others)
        found.append(np.mean(range(first, last + 1)))
    return found


@pytest.fixture
def draw():
    return np.random.default_rng(5)


# Ranks


def test_ranks_are_those_of_a_loop(draw):
    bank, prediction = draw.normal(size=(20, 6)), draw.normal(size=(50, 6))
    bank_group, group = np.arange(20) * 3, draw.integers(20, size=50) * 3
    expected = ranks_by_hand(prediction, bank, bank_group, group)
    assert ranks(torch.tensor(prediction), make_part(bank, bank_group, group)).tolist() == expected
    assert len(set(expected)) > 10


def test_several_answers_of_one_group_count_as_one_at_the_best_place(draw):
    """The group in question has four answers, each other group one."""
    bank, prediction = draw.normal(size=(20, 6)), draw.normal(size=(50, 6))
    bank_group = np.array([0, 1, 2, 0, 3, 4, 0, *range(5, 17), 0])
    expected = ranks_by_hand(prediction, bank, bank_group, [0] * 50)
    assert ranks(torch.tensor(prediction), make_part(bank, bank_group, [0] * 50)).tolist() == expected
    assert {1.0, 3.0} < set(expected)


def test_exact_ties_take_the_mean_of_their_places(draw):
    """Answers along the axes, predictions with repeated coordinates: ties of two, three and more."""
    bank = np.concatenate([np.eye(6), -np.eye(6)])
    prediction = draw.integers(-1, 2, size=(60, 6)).astype(float)
    prediction = prediction[np.abs(prediction).sum(1) > 0]
    group = np.arange(len(prediction)) % 12
    expected = ranks_by_hand(prediction, bank, np.arange(12), group)
    assert ranks(torch.tensor(prediction), make_part(bank, np.arange(12), group)).tolist() == expected
    assert any(rank % 1 for rank in expected)


@pytest.mark.parametrize("answers", [5, 17, 40])
def test_answers_with_the_same_vector_tie(answers):
    """Three answers of one vector, far apart in the bank, whatever the matrix product's last bit says."""
    generator = torch.Generator().manual_seed(answers)
    bank = F.normalize(torch.randn(answers, 64, generator=generator), dim=-1)
    bank[answers // 2] = bank[answers - 1] = bank[0]
    prediction = torch.randn(30, 64, generator=generator)
    part = make_part(bank, torch.arange(answers), torch.zeros(30, dtype=torch.int64))
    expected = ranks_by_hand(prediction.double().numpy(), bank.double().numpy(), range(answers), [0] * 30)
    assert ranks(prediction, part).tolist() == expected


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_prediction_gets_the_mean_rank(value):
    """No direction at all, or one as near to each answer as to any other: rank 5 of 9, not 1."""
    part = make_part(torch.eye(9), torch.arange(9), torch.arange(9))
    assert ranks(torch.full((9, 9), value), part).tolist() == [5] * 9


def test_constant_prediction_gets_the_mean_rank_on_average(draw):
    """Each answer has its own place before one and the same prediction."""
    bank = draw.normal(size=(9, 4))
    part = make_part(bank, np.arange(9), np.arange(9))
    assert ranks(torch.tensor(draw.normal(size=(1, 4))).expand(9, 4), part).mean().item() == 5


def test_prediction_that_is_not_a_number_is_no_hit():
    part = make_part(torch.eye(9), torch.arange(9), torch.arange(9))
    assert not (ranks(torch.full((9, 9), torch.nan), part) < 5).any()


def test_ranks_do_not_depend_on_lengths(draw):
    bank, prediction = torch.tensor(draw.normal(size=(20, 6))), torch.tensor(draw.normal(size=(30, 6)))
    group = torch.arange(30) % 20
    scaled = make_part(bank * torch.arange(1, 21)[:, None], torch.arange(20), group)
    longer = prediction * torch.arange(1, 31)[:, None]
    assert torch.equal(ranks(longer, scaled), ranks(prediction, make_part(bank, torch.arange(20), group)))


# Other metrics


def test_per_question_on_an_example_by_hand():
    """Two dimensions; the answers at 0, 90 and 180 degrees, the predictions at 0 and 90 for the first two."""
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    part = make_part(bank, torch.arange(3), torch.tensor([0, 2]))
    values = per_question(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), part, center=torch.tensor([0.0, 1.0]))
    assert tuple(values) == METRICS
    assert values["cosine"] == pytest.approx([1, 0], abs=1e-6)
    # Off the center: [2, -1] with [1, -1], and [0, 2] with [-1, -1].
    assert values["centered_cosine"] == pytest.approx([3 / 10**0.5, -1 / 2**0.5], abs=1e-6)
    # The second prediction is nearest to the answer at 90 degrees and ties the two others.
    assert values["mrr"].tolist() == [1, 1 / 2.5]
    assert values["recall@1"].tolist() == [1, 0]
    assert values["recall@5"].tolist() == [1, 1]
    assert values["recall@10"].tolist() == [1, 1]


def test_recall_counts_the_first_1_5_and_10_places():
    """Twelve answers, each less like the prediction than the one before."""
    angles = torch.linspace(0, 1, 12)
    bank = torch.stack([angles.cos(), angles.sin()], dim=1)
    part = make_part(bank, torch.arange(12), torch.arange(12))
    values = per_question(torch.tensor([[1.0, 0.0]]).expand(12, 2), part, center=torch.zeros(2))
    for k in (1, 5, 10):
        assert values[f"recall@{k}"].tolist() == [1] * k + [0] * (12 - k)
    assert values["mrr"] == pytest.approx([1 / (i + 1) for i in range(12)])


def test_anisotropy_is_1_for_one_direction_and_0_for_right_angles(draw):
    direction = torch.tensor(draw.normal(size=(1, 7)))
    assert anisotropy(direction * torch.arange(1, 5)[:, None]) == pytest.approx(1)
    assert anisotropy(torch.eye(7) * 3) == pytest.approx(0, abs=1e-12)


def test_anisotropy_is_the_mean_cosine_of_different_rows(draw):
    rows = draw.normal(size=(6, 3))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = [unit[i] @ unit[j] for i in range(6) for j in range(6) if i != j]
    assert anisotropy(torch.tensor(rows)) == pytest.approx(np.mean(cosines))


def test_effective_dimensions_of_a_line_are_1(draw):
    line = torch.tensor(draw.normal(size=(20, 1)) @ draw.normal(size=(1, 5)) + draw.normal(size=(1, 5)))
    assert effective_dimensions(line) == pytest.approx(1)


@pytest.mark.parametrize("dim", [2, 5])
def test_effective_dimensions_of_a_set_alike_in_all_directions_are_all(dim):
    axes = torch.cat([torch.eye(dim), -torch.eye(dim)])
    assert effective_dimensions(axes + 3) == pytest.approx(dim, rel=1e-5)


def test_effective_dimensions_by_eigenvalues(draw):
    rows = draw.normal(size=(30, 4)) * [4, 2, 1, 0.5]
    values = np.linalg.eigvalsh(np.cov(rows.T))
    assert effective_dimensions(torch.tensor(rows)) == pytest.approx(values.sum() ** 2 / (values**2).sum())


@pytest.mark.parametrize("rows", [10, 75, 112])
def test_effective_dimensions_of_one_and_the_same_prediction_are_near_0(rows):
    """In float32, where the mean of equal rows is not quite that row."""
    vector = F.normalize(torch.randn(1, 384, generator=torch.Generator().manual_seed(rows)), dim=-1)
    assert effective_dimensions(vector.expand(rows, 384)) < 0.5

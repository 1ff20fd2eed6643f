"""Agreement of teachers, against scipy's rank correlation and by hand."""

import pytest
import torch
import torch.nn.functional as F

from cube3d.teachers import agreement, item_agreement
from cube3d.teachers.agreement import spearman


def unit(*shape, seed):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("tied", [False, True])
def test_spearman_is_scipys(tied):
    stats = pytest.importorskip("scipy.stats", reason="computes the same correlation")
    first, second = torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(0))
    if tied:
        first, second = first.round(), second.round()
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    assert spearman(first, second).tolist() == pytest.approx(expected)


def test_a_teacher_agrees_with_a_turned_copy_of_itself_and_not_with_another():
    question, answer, turn = unit(30, 8, seed=1), unit(30, 8, seed=2), torch.linalg.qr(torch.randn(8, 8)).Q
    turned = agreement((question, answer), (question @ turn, answer @ turn))
    assert turned.similarity == pytest.approx(1, abs=1e-4)
    assert turned.top_1 == 1
    other = agreement((question, answer), (unit(30, 5, seed=3), unit(30, 5, seed=4)))
    assert abs(other.similarity) < 0.2
    assert other.top_1 < 0.3


def test_top_1_is_the_share_of_questions_with_the_same_nearest_answer():
    question = torch.eye(4)
    assert agreement((question, torch.eye(4)), (question, torch.eye(4)[[0, 1, 3, 2]])).top_1 == 0.5


def test_items_on_which_teachers_differ_stand_out():
    """Two teachers that are turned copies, but for one question that the second reads otherwise."""
    question, answer = unit(20, 8, seed=5), unit(20, 8, seed=6)
    changed = question.clone()
    changed[7] = -question[7]
    values = item_agreement([(question, answer), (changed, answer)])
    assert values.shape == (20,)
    assert values[7] == pytest.approx(-1)
    assert torch.allclose(values[torch.arange(20) != 7], torch.ones(19, dtype=torch.float64))


def test_three_teachers_agree_as_their_pairs_do_in_the_mean():
    teachers = [(unit(9, dim, seed=dim), unit(9, dim, seed=dim + 50)) for dim in (4, 6, 8)]
    pairs = [item_agreement([teachers[i], teachers[j]]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert torch.allclose(item_agreement(teachers), torch.stack(pairs).mean(0))

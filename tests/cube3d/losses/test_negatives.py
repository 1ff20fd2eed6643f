"""Negatives: which candidates are wrong, which of those count, the memory, and those mined before training."""

import pytest
import torch
import torch.nn.functional as F

from cube3d.config import LossSettings, NegativeSettings, load_settings
from cube3d.errors import UserError
from cube3d.losses import Objective
from cube3d.losses.memory import CrossBatchMemory
from cube3d.losses.negatives import chosen, true_negatives
from cube3d.training.mining import mine


def at(*degrees):
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_an_answer_of_the_own_group_or_above_the_ceiling_is_no_negative():
    """Answers at 0°, 10° and 90° and a fourth of the first one's group at 180°."""
    answers, groups = at(0, 10, 90, 180), torch.tensor([1, 2, 3, 1])
    by_group = true_negatives(groups, answers, groups, answers, None)
    assert by_group.int().tolist() == [[0, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0]]
    by_ceiling = true_negatives(groups, 5 * answers, groups, 2 * answers, 0.9)  # cos 10° = 0.985
    assert by_ceiling.int().tolist() == [[0, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0]]


# One row whose answer has cosine 0.5; the candidate of cosine 0.9 is no negative.
POSITIVE = torch.tensor([0.5])
SIMILARITY = torch.tensor([[0.8, 0.45, 0.9, 0.4, 0.35, 0.2, -0.3]])
NEGATIVE = torch.tensor([[True, True, False, True, True, True, True]])


@pytest.mark.parametrize(
    ("choose", "count", "expected"),
    [
        ("all", None, [0, 1, 3, 4, 5, 6]),
        ("hard", 1, [0]),
        ("hard", 3, [0, 1, 3]),
        ("hard", 7, [0, 1, 3, 4, 5, 6]),
        ("semi_hard", None, [1, 3, 4]),
        ("semi_hard", 2, [1, 3]),
        ("semi_hard", 6, [1, 3, 4]),
    ],
)
def test_the_negatives_that_count(choose, count, expected):
    mask = chosen(NEGATIVE, POSITIVE, SIMILARITY, NegativeSettings(choose=choose, count=count), margin=0.2)
    assert mask[0].nonzero().flatten().tolist() == expected


def test_random_negatives_are_as_many_as_asked_and_each_as_likely():
    torch.manual_seed(0)
    settings = NegativeSettings(choose="random", count=2)
    rows = 3000
    mask = chosen(NEGATIVE.expand(rows, -1), POSITIVE.expand(rows), SIMILARITY.expand(rows, -1), settings, margin=0.2)
    assert (mask.sum(1) == 2).all()
    share = mask.double().mean(0)
    assert share[2] == 0
    assert share[NEGATIVE[0]].tolist() == pytest.approx([2 / 6] * 6, abs=0.04)  # 4.6 standard errors


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["choose=hard"], "choose 'hard' needs a count"),
        (["choose=random"], "choose 'random' needs a count"),
        (["count=3"], "choose 'all' takes no count, got 3"),
        (["choose=easy"], "'all', 'random', 'hard' or 'semi_hard', got 'easy'"),
        (["ceiling=1.5"], "ceiling"),
        (["depth=3"], "unknown key 'depth' in loss.negatives; valid: pool, choose, count, mined, memory, ceiling"),
        (["mined=2"], "mined adds answers to those of a batch, and pool 'bank' has all; set pool: batch"),
        (["memory=9"], "memory adds answers to those of a batch, and pool 'bank' has all; set pool: batch"),
        (["pool=queue"], "'bank' or 'batch', got 'queue'"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(given, message):
    with pytest.raises(UserError) as caught:
        load_settings(None, [f"loss.negatives.{override}" for override in given])
    assert message in str(caught.value)


def test_the_memory_keeps_the_newest_and_survives_its_state_dict():
    memory = CrossBatchMemory(5, 2)
    assert len(memory.read()[1]) == 0
    rows = torch.arange(16.0).reshape(8, 2)
    for start, kept in ((0, [0, 1, 2]), (3, [1, 2, 3, 4, 5]), (6, [3, 4, 5, 6, 7])):
        memory.push(rows[start : start + 3], torch.arange(8)[start : start + 3])
        assert memory.read()[1].tolist() == kept
        assert torch.equal(memory.read()[0], rows[kept])
    copy = CrossBatchMemory(5, 2)
    copy.load_state_dict(memory.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(copy.read(), memory.read(), strict=True))


def test_a_batch_larger_than_the_memory_fills_it():
    memory = CrossBatchMemory(2, 1)
    memory.push(torch.arange(5.0)[:, None], torch.arange(5))
    assert memory.read()[1].tolist() == [3, 4]


def info_nce(pool="batch", **negatives):
    chosen_negatives = NegativeSettings(pool=pool, **negatives)
    settings = LossSettings(cosine=0.0, info_nce=1.0, temperature=0.1, negatives=chosen_negatives)
    return Objective(settings, 2).double()


BANK, BANK_GROUP = at(0, 20, 75, 130, 250), torch.tensor([0, 7, 1, 2, 0])


@pytest.mark.parametrize("ceiling", [None, 0.9])
def test_every_answer_of_the_bank_is_a_negative_once_unless_it_is_of_the_rows_group(ceiling):
    """Two rows of one group and one of another; the ceiling takes 20° for another wording of the answer at 0°."""
    prediction, answer, group = at(10, 240, 80), at(0, 250, 75), torch.tensor([0, 0, 1])
    objective = info_nce("bank", ceiling=ceiling).train()
    total, _ = objective(prediction, answer, group, bank=BANK, bank_group=BANK_GROUP)
    rows = []
    for p, a, g in zip(prediction, answer, group, strict=True):
        own = torch.exp(p @ a / 0.1)
        wrong = [n for n, of in zip(BANK, BANK_GROUP, strict=True) if of != g and (ceiling is None or n @ a <= ceiling)]
        rows.append(-torch.log(own / (own + sum(torch.exp(p @ n / 0.1) for n in wrong))))
    assert total.item() == pytest.approx((sum(rows) / 3).item(), rel=1e-9)


def test_hard_negatives_are_the_hardest_of_the_bank():
    prediction, answer, group = at(10), at(0), torch.tensor([0])
    total, _ = info_nce("bank", choose="hard", count=1).train()(
        prediction, answer, group, bank=BANK, bank_group=BANK_GROUP
    )
    own, nearest = (torch.exp(prediction[0] @ v[0] / 0.1) for v in (at(0), at(20)))
    assert total.item() == pytest.approx(-torch.log(own / (own + nearest)).item(), rel=1e-9)


def test_a_bank_that_is_missing_is_said_and_evaluation_takes_none():
    prediction, answer, group = at(5, 100, 200), at(0, 90, 180), torch.arange(3)
    with pytest.raises(ValueError, match="pool is 'bank': training takes the bank"):
        info_nce("bank").train()(prediction, answer, group)
    evaluated, _ = info_nce("bank").eval()(prediction, answer, group, bank=BANK, bank_group=BANK_GROUP)
    assert evaluated == info_nce().eval()(prediction, answer, group)[0]


def test_evaluation_neither_reads_nor_fills_the_memory_and_takes_all_negatives():
    objective = info_nce(memory=8, choose="hard", count=1, ceiling=-0.5)
    prediction, answer, group = at(5, 100, 200), at(0, 90, 180), torch.arange(3)
    objective.train()(at(0, 30), at(20, 50), torch.tensor([8, 9]))
    objective.eval()
    total, _ = objective(prediction, answer, group)
    expected, _ = info_nce().eval()(prediction, answer, group)
    assert total == expected
    assert objective.memory.filled == 2


def test_mined_answers_are_negatives_of_the_whole_batch_unless_they_answer_it():
    """Row 0's mined answer is of group 1: a negative of row 0, none of row 1."""
    prediction, answer, group = at(0, 90), at(0, 90), torch.tensor([0, 1])
    mined, mined_group = at(60, 180).unflatten(0, (2, 1)), torch.tensor([[1], [5]])
    total, _ = info_nce().train()(prediction, answer, group, mined=mined, mined_group=mined_group)
    e = lambda degrees: torch.exp(torch.cos(torch.deg2rad(torch.tensor(float(degrees)))) / 0.1).double()  # noqa: E731
    first = -torch.log(e(0) / (e(0) + e(90) + e(60) + e(180)))
    second = -torch.log(e(0) / (e(0) + e(90) + e(90)))
    assert total.item() == pytest.approx(((first + second) / 2).item(), abs=1e-6)


def test_mining_finds_the_wrong_answers_that_identity_would_rank_highest(parts):
    train = parts.train
    mined = mine(train, NegativeSettings(pool="batch", mined=3))
    assert mined.shape == (len(train), 3)
    for i in range(len(train)):
        cosines = [F.cosine_similarity(train.question[i], answer, dim=0).item() for answer in train.bank]
        wrong = [j for j in range(len(cosines)) if train.bank_group[j] != train.group[i]]
        assert mined[i].tolist() == sorted(wrong, key=lambda j: -cosines[j])[:3]


def test_mining_stays_below_the_ceiling_and_gives_what_is_asked_or_says_how_many_there_are(parts):
    train = parts.train
    near = F.normalize(train.answer, dim=-1) @ F.normalize(train.bank, dim=-1).T
    ceiling = 0.3
    mined = mine(train, NegativeSettings(pool="batch", mined=4, ceiling=ceiling))
    assert (near.gather(1, mined) <= ceiling).all()
    assert (near.gather(1, mine(train, NegativeSettings(pool="batch", mined=4))) > ceiling).any()
    with pytest.raises(UserError, match=r"mined is 24, but made:0 has only 23 wrong answers among the 24"):
        mine(train, NegativeSettings(pool="batch", mined=24))

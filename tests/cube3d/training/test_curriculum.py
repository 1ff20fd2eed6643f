"""The curriculum: how hard a pair is, and when it is learned."""

import pytest
import torch

from cube3d.config import CurriculumSettings, LossSettings, NegativeSettings, load_settings
from cube3d.errors import UserError
from cube3d.losses import Objective
from cube3d.metrics import ranks
from cube3d.pairs import Pair
from cube3d.training.curriculum import competence, difficulty
from cube3d.vectors import Part


@pytest.fixture
def part():
    """Four pairs of growing angle between question and answer, and texts of 30, 10, 10 and 20 characters."""
    angles = torch.deg2rad(torch.tensor([5.0, 20.0, 50.0, 80.0], dtype=torch.float64))
    answers = torch.eye(4, dtype=torch.float64)
    questions = angles.cos()[:, None] * answers + angles.sin()[:, None] * answers.roll(1, 0)
    pairs = [Pair("q" * (n - 5), "a" * 5, f"made:{n}") for n in (30, 10, 10, 20)]
    group = torch.arange(4)
    return Part(pairs, [pair.prompt for pair in pairs], questions, answers, group, answers, group, list("abcd"))


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (["similarity"], [0.25, 0.5, 0.75, 1.0]),
        (["length"], [1.0, 0.5, 0.5, 0.75]),
        (["length", "similarity"], [0.75, 0.25, 0.75, 1.0]),  # means 0.625, 0.5, 0.625, 0.875
    ],
)
def test_difficulty_is_the_share_of_pairs_that_are_at_most_as_hard(by, expected, part):
    assert difficulty(part, by).tolist() == expected


def test_difficulty_by_rank_follows_the_rank_of_the_true_answer_by_the_teachers_own_vectors(part):
    """Beyond 45° the next answer is nearer than the true one."""
    assert ranks(part.question, part).tolist() == [1, 1, 2, 2]
    assert difficulty(part, ["rank"]).tolist() == [0.5, 0.5, 1.0, 1.0]


def test_competence_warms_up_grows_linearly_and_is_whole_at_the_end():
    settings = CurriculumSettings(by=["length"], start=0.3, warmup=0.2, full=0.6)
    for progress, expected in ((0, 0.3), (0.2, 0.3), (0.3, 0.475), (0.4, 0.65), (0.5, 0.825), (0.6, 1), (1, 1)):
        assert competence(progress, settings) == pytest.approx(expected)
    assert all(competence(1, CurriculumSettings(by=["rank"], start=s / 997)) == 1 for s in range(1, 997))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.curriculum.by=[age]", "'length', 'similarity' or 'rank', got 'age'"),
        ("training.curriculum.by=[rank,rank]", "by names a measure twice: rank, rank"),
        ("training.curriculum.warmup=0.5", "warmup 0.5 must be less than full 0.5"),
        ("training.curriculum.start=0", "training.curriculum.start"),
    ],
)
def test_a_curriculum_that_makes_no_sense_is_refused(override, message):
    with pytest.raises(UserError) as caught:
        load_settings(None, [override])
    assert message in str(caught.value)


def test_a_pair_that_is_not_yet_learned_still_gives_a_negative(part):
    """The losses of the counted rows are what they are with all rows counted."""
    in_batch = NegativeSettings(pool="batch")
    objective = Objective(LossSettings(cosine=0.0, info_nce=1.0, negatives=in_batch), 4).double()
    rows = [objective(part.question, part.answer, part.group, counted=part.group == i)[0].item() for i in range(4)]
    some, _ = objective(part.question, part.answer, part.group, counted=torch.tensor([True, False, True, False]))
    assert some.item() == pytest.approx((rows[0] + rows[2]) / 2, abs=1e-12)
    assert len(set(rows)) == 4

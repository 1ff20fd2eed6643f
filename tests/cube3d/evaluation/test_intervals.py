"""The bootstrap's intervals and its test, over answer groups and runs."""

import numpy as np
import pytest

from cube3d.evaluation import intervals
from cube3d.evaluation.intervals import Bootstrap


def one_run(group, seed):
    return Bootstrap(group, np.zeros(len(group)), seed)


@pytest.fixture
def draw():
    return np.random.default_rng(5)


@pytest.fixture
def questions(draw):
    """Groups of one to four questions, in no order, and a value for each question."""
    group = draw.permutation(np.repeat(np.arange(40) * 5, 1 + np.arange(40) % 4))
    return group, draw.normal(size=len(group))


def test_estimate_is_the_plain_mean_within_its_interval(questions):
    group, values = questions
    estimate = one_run(group, seed=0).estimate(values)
    assert estimate.mean == pytest.approx(values.mean(), abs=1e-12)
    assert estimate.low < estimate.mean < estimate.high


def test_interval_of_equal_values_is_that_value(questions):
    group, values = questions
    estimate = one_run(group, seed=0).estimate(np.full_like(values, 0.25))
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((0.25, 0.25, 0.25), abs=1e-12)


def test_interval_agrees_with_resampling_group_by_group(questions):
    """Against a loop that draws groups with replacement and pools their questions."""
    group, values = questions
    draw = np.random.default_rng(77)
    members = [values[group == g] for g in np.unique(group)]
    means = [
        np.concatenate([members[g] for g in draw.integers(len(members), size=len(members))]).mean() for _ in range(4000)
    ]
    estimate = one_run(group, seed=0).estimate(values)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.015)


def test_groups_move_as_wholes(draw):
    """Sixteen equal questions in each of ten groups tell as little as ten questions, not as much as 160."""
    values = np.repeat(draw.normal(size=10), 16)
    together = one_run(np.repeat(np.arange(10), 16), seed=0).estimate(values)
    apart = one_run(np.arange(160), seed=0).estimate(values)
    single = one_run(np.arange(10), seed=0).estimate(values[::16])
    width = together.high - together.low
    assert width > 3 * (apart.high - apart.low)
    assert width == pytest.approx(single.high - single.low)


def test_one_seed_gives_one_interval_and_another_seed_another(questions):
    group, values = questions
    assert one_run(group, seed=1).estimate(values) == one_run(group, seed=1).estimate(values)
    assert one_run(group, seed=1).estimate(values) != one_run(group, seed=2).estimate(values)


def test_differences_are_paired(questions):
    """The draws are the same for both, so that a constant gain has no width however much the values vary."""
    group, values = questions
    bootstrap = one_run(group, seed=1)
    worse, better = bootstrap.estimate(values), bootstrap.estimate(values + 0.5)
    assert (better.low - worse.low, better.high - worse.high) == pytest.approx((0.5, 0.5), abs=1e-12)


def test_interval_contains_the_truth_about_as_often_as_it_says(monkeypatch):
    """200 data sets of 50 groups with one to four questions that have much in common."""
    monkeypatch.setattr(intervals, "RESAMPLES", 1000)
    draw, hits = np.random.default_rng(11), 0
    for seed in range(200):
        group = np.repeat(np.arange(50), draw.integers(1, 5, size=50))
        values = 0.7 + draw.normal(size=50)[group] + 0.5 * draw.normal(size=len(group))
        estimate = one_run(group, seed).estimate(values)
        hits += estimate.low <= 0.7 <= estimate.high
    assert 180 <= hits <= 198


# Several runs


@pytest.fixture
def crossed(draw):
    """30 groups of one to three questions; each of four runs holds out another third of the groups."""
    group, run = [], []
    for seed in range(4):
        for g in draw.permutation(30)[:10]:
            group += [g] * (1 + g % 3)
            run += [seed] * (1 + g % 3)
    return np.array(group), np.array(run), draw.normal(size=len(group))


def test_the_interval_of_several_runs_agrees_with_drawing_groups_and_runs_in_a_loop(crossed):
    group, run, values = crossed
    draw, means = np.random.default_rng(3), []
    for _ in range(4000):
        groups = np.bincount(draw.integers(30, size=30), minlength=30)
        runs = np.bincount(draw.integers(4, size=4), minlength=4)
        weights = groups[group] * runs[run]
        if weights.sum():
            means.append((weights * values).sum() / weights.sum())
    estimate = Bootstrap(group, run, seed=0).estimate(values)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)
    assert estimate.mean == pytest.approx(values.mean())


def test_a_question_that_every_run_holds_out_is_not_several_questions(draw):
    """Five runs with the same test part and the same predictions tell what one of them tells."""
    group, values = np.repeat(np.arange(20), 2), draw.normal(size=40)
    alone = one_run(group, seed=0).estimate(values)
    five = Bootstrap(np.tile(group, 5), np.repeat(np.arange(5), 40), seed=0).estimate(np.tile(values, 5))
    assert (five.mean, five.low, five.high) == pytest.approx((alone.mean, alone.low, alone.high), abs=0.03)


def test_what_a_run_has_in_common_widens_the_interval(draw):
    """Four runs, each with a shift of its own for all its questions: many questions do not make up for it."""
    group, run = np.tile(np.arange(100), 4), np.repeat(np.arange(4), 100)
    noise = 0.1 * draw.normal(size=400)
    steady = Bootstrap(group, run, seed=0).estimate(noise)
    shifted = Bootstrap(group, run, seed=0).estimate(noise + np.array([-1.0, -0.3, 0.3, 1.0])[run])
    assert shifted.high - shifted.low > 10 * (steady.high - steady.low)


def test_labels_may_be_text(crossed):
    group, run, values = crossed
    named = Bootstrap([f"{g:03d}" for g in group], run, seed=0).estimate(values)
    assert named == Bootstrap(group, run, seed=0).estimate(values)


def test_resamples_without_a_question_are_left_out():
    """Two groups, each held out by one run of two: an eighth of the draws holds nothing or one group alone."""
    estimate = Bootstrap([0, 1], [0, 1], seed=0).estimate(np.array([1.0, 3.0]))
    assert (estimate.low, estimate.mean, estimate.high) == (1, 2, 3)


# The test


def test_p_is_below_5_percent_where_the_interval_excludes_zero(draw):
    """For shifts from nothing to far beyond the noise."""
    group, noise = np.arange(60), draw.normal(size=60)
    bootstrap, seen = one_run(group, seed=0), set()
    for shift in np.linspace(-0.6, 0.6, 41):
        found = bootstrap.difference(noise - noise.mean() + shift)
        excluded = not found.low <= 0 <= found.high
        if abs(found.p - 0.05) > 0.001:
            assert excluded == (found.p < 0.05), shift
            seen.add(excluded)
    assert seen == {True, False}


def test_p_of_no_difference_at_all_is_1():
    assert one_run(np.arange(9), seed=0).difference(np.zeros(9)).p == 1


def test_p_does_not_depend_on_the_direction(crossed):
    group, run, values = crossed
    bootstrap = Bootstrap(group, run, seed=0)
    assert bootstrap.difference(values + 0.1).p == bootstrap.difference(-values - 0.1).p


@pytest.mark.parametrize("runs", [1, 4])
def test_without_a_difference_the_test_seldom_finds_one(runs, monkeypatch):
    """200 data sets of 40 groups, each with a mean of its own, and runs that share a shift: p < 0.05 in at most
    one of ten, though by chance it should be found in some."""
    monkeypatch.setattr(intervals, "RESAMPLES", 500)
    draw, found = np.random.default_rng(8), 0
    group, run = np.tile(np.arange(40), runs), np.repeat(np.arange(runs), 40)
    for seed in range(200):
        shift = 0.05 * draw.normal(size=runs)[run] if runs > 1 else 0
        values = draw.normal(size=40)[group] + shift + 0.5 * draw.normal(size=len(group))
        found += Bootstrap(group, run, seed).difference(values).p < 0.05
    assert 1 <= found <= 20

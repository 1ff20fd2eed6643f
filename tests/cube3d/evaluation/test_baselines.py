"""Baselines that need no training, and what the trained ones are trained on."""

import pytest
import torch

from cube3d.evaluation.baselines import identity, lattice_off, mean_answer, parameter_count, shuffled, sized_mlp
from cube3d.model import CubeConfig, CubeModel, MLPModel
from cube3d.pairs import Pair
from cube3d.training import ridge as regression
from cube3d.training.ridge import ridge
from cube3d.vectors import Part, Parts

DIM = 6


def make_part(question, answer, group=None):
    count = len(question)
    group = torch.arange(count) if group is None else group
    pairs = [Pair(f"q{i}", f"a{i}", "made:1") for i in range(count)]
    return Part(
        pairs, [pair.prompt for pair in pairs], question, answer, group, answer, group, [pair.answer for pair in pairs]
    )


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(2)


@pytest.fixture
def linear(generator):
    """A map with an intercept, and parts whose answers are exactly what it gives."""
    weight = torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)
    shift = torch.randn(DIM, generator=generator, dtype=torch.float64)

    def function(question):
        return question @ weight + shift

    questions = [torch.randn(n, DIM, generator=generator, dtype=torch.float64) for n in (40, 12, 12)]
    return function, Parts(*[make_part(q, function(q)) for q in questions])


@pytest.mark.parametrize("residual", [False, True], ids=["ridge", "residual ridge"])
def test_ridge_with_a_tiny_penalty_recovers_a_linear_map(monkeypatch, linear, residual):
    monkeypatch.setattr(regression, "PENALTIES", (1e-12,))
    function, parts = linear
    predicted = ridge(parts, residual)(parts.test.question)
    assert torch.allclose(predicted, function(parts.test.question), atol=1e-8)


def test_ridge_with_a_huge_penalty_falls_back_to_the_mean_answer(monkeypatch, linear):
    monkeypatch.setattr(regression, "PENALTIES", (1e12,))
    _, parts = linear
    predicted = ridge(parts, residual=False)(parts.test.question)
    assert torch.allclose(predicted, parts.train.answer.mean(0).expand_as(predicted), atol=1e-8)


def test_residual_ridge_with_a_huge_penalty_falls_back_to_the_question(monkeypatch, linear):
    """Moved by the mean of what the answers add."""
    monkeypatch.setattr(regression, "PENALTIES", (1e12,))
    _, parts = linear
    predicted = ridge(parts, residual=True)(parts.test.question)
    added = (parts.train.answer - parts.train.question).mean(0)
    assert torch.allclose(predicted, parts.test.question + added, atol=1e-8)


@pytest.mark.parametrize("residual", [False, True], ids=["ridge", "residual ridge"])
def test_ridge_minimizes_the_penalized_squares(monkeypatch, generator, residual):
    """At a middling penalty, where no direction improves the sum."""
    penalty = 3.0
    monkeypatch.setattr(regression, "PENALTIES", (penalty,))
    x = torch.randn(30, DIM, generator=generator, dtype=torch.float64)
    y = torch.randn(30, DIM, generator=generator, dtype=torch.float64)
    part = make_part(x, y)
    predict = ridge(Parts(part, part, part), residual)
    zero = predict(torch.zeros(1, DIM, dtype=torch.float64))
    weight = predict(torch.eye(DIM, dtype=torch.float64)) - zero
    shrunk = weight - torch.eye(DIM, dtype=torch.float64) if residual else weight
    error = x @ weight + zero - y
    assert torch.allclose(x.T @ error + penalty * shrunk, torch.zeros(DIM, DIM, dtype=torch.float64), atol=1e-8)
    assert torch.allclose(error.sum(0), torch.zeros(DIM, dtype=torch.float64), atol=1e-8)


@pytest.mark.parametrize("penalties", [(1e-10, 1e10), (1e10, 1e-10)])
def test_ridge_takes_the_penalty_that_ranks_the_validation_answers_best(monkeypatch, linear, penalties):
    monkeypatch.setattr(regression, "PENALTIES", penalties)
    function, parts = linear
    assert torch.allclose(ridge(parts, residual=False)(parts.test.question), function(parts.test.question), atol=1e-6)


def test_ridge_answers_in_the_precision_of_the_question(linear):
    _, parts = linear
    assert ridge(parts, residual=False)(parts.test.question.float()).dtype == torch.float32


def test_identity_gives_the_question_back(generator):
    questions = torch.randn(5, DIM, generator=generator)
    assert torch.equal(identity(questions), questions)


def test_mean_answer_is_the_mean_training_answer_whatever_is_asked(generator):
    train = make_part(torch.zeros(3, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 12.0]]))
    predicted = mean_answer(train)(torch.randn(4, 2, generator=generator))
    assert torch.equal(predicted, torch.tensor([[3.0, 6.0]]).expand(4, 2))


@pytest.fixture
def grouped(generator):
    """Groups of one to three rows, in no order, with numbers that are no indices."""
    group = (torch.arange(9).repeat_interleave(torch.arange(9) % 3 + 1) * 10 + 5)[
        torch.randperm(18, generator=generator)
    ]
    return make_part(torch.randn(18, DIM, generator=generator), group[:, None] * torch.ones(DIM), group)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_gives_every_row_an_answer_of_another_group(grouped, seed):
    changed = shuffled(grouped, seed)
    assert not (changed.answer[:, 0] == grouped.group).any()
    assert set(changed.answer[:, 0].tolist()) == set(grouped.group.tolist())
    assert torch.equal(changed.question, grouped.question)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_keeps_the_rows_of_a_group_together(grouped, seed):
    """One answer for all, and no other group's rows with them; the group's number follows the answer."""
    changed = shuffled(grouped, seed)
    exchanged = set(zip(grouped.group.tolist(), changed.answer[:, 0].tolist(), strict=True))
    assert len(exchanged) == len({new for _, new in exchanged}) == 9
    assert torch.equal(changed.group.float(), changed.answer[:, 0])


def test_shuffled_is_the_same_for_one_seed_and_another_for_another(grouped):
    assert torch.equal(shuffled(grouped, 1).answer, shuffled(grouped, 1).answer)
    assert not torch.equal(shuffled(grouped, 1).answer, shuffled(grouped, 2).answer)


@pytest.mark.parametrize(
    ("dim", "cube"),
    [
        (48, {"shape": [2, 2, 2], "channels": 8, "hidden": 16, "lift": "per_cell", "update": "gated"}),
        (48, {"shape": [1, 2, 3], "channels": 16, "hidden": 32, "lift": "shared", "update": "residual"}),
        (96, {"shape": [2, 2, 2], "channels": 8, "hidden": 64, "lift": "per_cell", "perception": "gather"}),
        (384, {"shape": [4, 4, 4], "channels": 16, "hidden": 64, "lift": "per_cell", "update": "replace"}),
    ],
)
@pytest.mark.parametrize("times", [1, 4])
def test_the_mlp_has_as_many_times_the_cubes_parameters_as_asked_within_5_percent(times, dim, cube):
    model = CubeModel(CubeConfig(dim=dim, cube={"steps": 2, **cube}))
    mlp = MLPModel(sized_mlp(model, times))
    assert parameter_count(mlp) == pytest.approx(times * parameter_count(model), rel=0.05)
    assert mlp(torch.ones(1, dim)).prediction.shape == (1, dim)


def test_parameters_of_the_losses_are_not_counted():
    cube = {"shape": [2, 2, 2], "channels": 4, "steps": 1}
    model = CubeModel(CubeConfig(dim=48, cube=cube, loss={"learn_temperature": True}))
    learned_by_losses = sum(p.numel() for p in model.objective.parameters())
    assert learned_by_losses > 0
    assert parameter_count(model) == sum(p.numel() for p in model.parameters()) - learned_by_losses


def test_parameters_of_a_rule_that_no_step_applies_are_not_counted():
    cube = {"shape": [2, 2, 2], "channels": 4, "hidden": 8}
    off, on = (CubeModel(CubeConfig(dim=48, cube={**cube, "steps": steps})) for steps in (0, 1))
    rule = sum(p.numel() for p in on.mapping.layer.parameters())
    assert rule > 0
    assert parameter_count(off) == parameter_count(on) - rule


def test_the_mlp_is_trained_with_the_cubes_losses():
    loss = {"cosine": 0.25, "info_nce": 4.0, "temperature": 0.5}
    model = CubeModel(CubeConfig(dim=48, cube={"shape": [2, 2, 2], "channels": 4, "steps": 1}, loss=loss))
    assert MLPModel(sized_mlp(model, 1)).objective.weights == {"cosine": 0.25, "info_nce": 4.0}


@pytest.mark.parametrize("regions", [{}, {"input": "front", "output": "back"}], ids=["volume", "face to face"])
def test_lattice_off_is_the_cube_without_steps_on_the_cells_where_the_question_enters(regions):
    cube = CubeModel(CubeConfig(dim=48, cube={"shape": [3, 2, 2], "channels": 4, "steps": 2, **regions}))
    off = CubeModel(lattice_off(cube)).mapping
    assert off.layer.steps == 0
    assert off.input == off.output == cube.mapping.input
    torch.nn.init.normal_(off.readout)
    assert not torch.equal(*(off.read(off.place(question)) for question in torch.randn(2, 1, 48))), "it is read"

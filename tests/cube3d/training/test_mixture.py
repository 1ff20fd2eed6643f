"""Ridge mixed into trained predictions: what it computes, how its share is chosen, where it is kept and who gets it."""

import json

import pytest
import torch
import torch.nn.functional as F

from cube3d import run as runs
from cube3d.answering.answer import Reader
from cube3d.cli import main
from cube3d.config import TrainingSettings
from cube3d.errors import UserError
from cube3d.evaluation.baselines import parameter_count, rows, shuffled, sized_mlp
from cube3d.metrics import measure
from cube3d.model import CubeConfig, CubeModel, MLPConfig, MLPModel, load_model
from cube3d.training.mixture import SHARES, Linear, mix
from cube3d.training.ridge import ridge
from tests.cube3d.conftest import CUBE, DIM

METRICS = ["loss", "ranking_loss", "mrr", "cosine", "centered_cosine"]


@pytest.fixture(params=["cube", "mlp"])
def model(request):
    """Not the identity, nor trained."""
    torch.manual_seed(0)
    loss = {"temperature": 0.1, "cosine": 2.0}
    if request.param == "mlp":
        made = MLPModel(MLPConfig(dim=DIM, hidden=8, loss=loss))
        torch.nn.init.normal_(made.mapping.to_output.weight, std=1.0)
    else:
        made = CubeModel(CubeConfig(dim=DIM, cube=CUBE, loss=loss))
        torch.nn.init.normal_(made.mapping.readout, std=0.2)
    return made.eval()


@pytest.fixture
def linear():
    generator = torch.Generator().manual_seed(4)
    return Linear(*(torch.randn(shape, generator=generator).double() for shape in ((DIM, DIM), (DIM,))))


def unit(vector):
    return vector / sum(v**2 for v in vector).sqrt()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_prediction_is_the_weighted_sum_of_two_unit_vectors(model, linear, share):
    questions = torch.randn(5, DIM)
    alone = model.map(questions)
    model.set_ridge(linear.map, linear.shift, share)
    mixed = model.map(questions)
    for q, p, found in zip(questions, alone, mixed, strict=True):
        r = [sum(q[i] * linear.map[i, j] for i in range(DIM)) + linear.shift[j] for j in range(DIM)]
        assert torch.allclose(found, (1 - share) * unit(p) + share * unit(torch.stack(r).float()), atol=1e-5)
    assert torch.equal(model.alone(questions), alone)
    assert torch.equal(model(questions).prediction, mixed), "the forward pass says the same"


@pytest.mark.parametrize("metric", METRICS)
def test_the_share_is_the_best_on_validation_by_what_training_stops_on(model, parts, metric):
    fitted = ridge(parts, residual=True)  # finds every answer of these parts: it would be mixed in whole
    torch.manual_seed(0)
    fitted = Linear(fitted.map + 0.3 * torch.randn(DIM, DIM).double(), fitted.shift)
    own, center = model.predict(parts.validation), parts.train.answer.mean(0)
    values = {}
    for share in SHARES:
        mixed = (1 - share) * F.normalize(own, dim=-1) + share * F.normalize(fitted(parts.validation.question), dim=-1)
        values[share] = measure(mixed, parts.validation, center, model.objective)[metric]
    assert metric == "mrr" or len(set(values.values())) > 1, "of ten answers, any share finds the right one"
    best = (min if metric.endswith("loss") else max)(values.values())
    chosen = mix(model, fitted, parts, metric)
    assert values[chosen] == pytest.approx(best, rel=1e-6)
    assert model.mixture.share.item() == pytest.approx(chosen)
    assert torch.allclose(model.mixture.map, fitted.map.float())


def test_every_metric_that_training_stops_on_can_choose_a_share(parts, model):
    assert list(TrainingSettings.model_fields["stop_on"].annotation.__args__) == METRICS
    assert set(METRICS) <= set(measure(parts.validation.question, parts.validation, torch.zeros(DIM), model.objective))


def test_the_mixture_is_saved_with_the_model(model, linear, tmp_path):
    model.set_ridge(linear.map, linear.shift, 0.4)
    questions = torch.randn(3, DIM)
    model.save(tmp_path / "model")
    again = load_model(type(model), tmp_path / "model")
    assert torch.equal(again.map(questions), model.map(questions))
    assert torch.equal(again.alone(questions), model.alone(questions))
    assert not torch.allclose(again.map(questions), again.alone(questions), atol=0.1)


def test_ridges_numbers_count_as_parameters_and_make_no_mlp_larger(model, linear, parts):
    before = parameter_count(model)
    assert list(rows("it", model)) == ["it"]
    model.set_ridge(linear.map, linear.shift, 0.4)
    assert parameter_count(model) == before + DIM * DIM + DIM + 1
    methods = rows("it", model)
    assert {name: method.parameters for name, method in methods.items()} == {
        "it": before + DIM * DIM + DIM + 1,
        "it alone": before,
    }
    assert torch.equal(methods["it"].predict(parts.test), model.map(parts.test.question))
    assert torch.equal(methods["it alone"].predict(parts.test), model.alone(parts.test.question))


def test_the_mlp_is_sized_by_the_cubes_mapping(linear):
    cube = CubeModel(CubeConfig(dim=DIM, cube=CUBE))
    plain = sized_mlp(cube, 1)
    cube.set_ridge(linear.map, linear.shift, 0.4)
    assert sized_mlp(cube, 1).hidden == plain.hidden
    assert not sized_mlp(cube, 1).mixture


# A whole run


def test_a_run_mixes_the_cube_and_every_trained_baseline_with_ridge(evaluated_run):
    run = runs.load(evaluated_run)
    fitted = ridge(run.parts, residual=True)
    assert torch.allclose(run.model.mixture.map, fitted.map.float())
    saved = {
        name: load_model(kind, evaluated_run / "baselines" / name)
        for name, kind in {"lattice_off": CubeModel, "MLP": MLPModel, "MLP_x4": MLPModel}.items()
    }
    for loaded in saved.values():
        assert torch.equal(loaded.mixture.map, run.model.mixture.map)
    control = load_model(CubeModel, evaluated_run / "baselines" / "shuffled_pairs").mixture
    exchanged = type(run.parts)(shuffled(run.parts.train, run.settings.seed), run.parts.validation, run.parts.test)
    assert torch.allclose(control.map, ridge(exchanged, residual=True).map.float()), "fitted to the shuffled pairs"
    measured = json.loads((evaluated_run / "questions.json").read_text())["values"]
    expected = F.cosine_similarity(run.model.alone(run.parts.test.question), run.parts.test.answer)
    assert measured["cube alone"]["cosine"] == pytest.approx(expected.tolist(), abs=1e-6)


def test_asking_uses_the_mixture(trained_run, linear):
    run = runs.load(trained_run)
    question = "what is a river?"
    vectors = run.ensemble.questions([question])
    run.model.set_ridge(torch.randn(16, 16), torch.zeros(16), 0.9)
    bank = run.ensemble.answers([pair.answer for pair in run.pairs])
    expected = F.cosine_similarity(run.model.map(vectors), bank).max().item()
    assert Reader(run).answer([question], 1)[0][0].score == pytest.approx(expected, abs=1e-5)
    alone = F.cosine_similarity(run.model.alone(vectors), bank).max().item()
    assert expected != pytest.approx(alone, abs=1e-3)


def test_a_run_without_a_mixture_has_the_mapping_alone(config_file, tmp_path):
    folder = tmp_path / "run"
    assert main(["train", "--config", str(config_file), "--out", str(folder), "mixture=none"]) == 0
    run = runs.load(folder)
    assert run.model.mixture is None
    assert torch.equal(run.model.predict(run.parts.test), run.model.alone(run.parts.test.question))


def test_a_model_with_another_mixture_than_the_runs_is_refused(trained_run, tmp_path):
    import shutil

    shutil.copytree(trained_run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("mixture: ridge", "mixture: none"))
    with pytest.raises(UserError, match="of another configuration: mixture differs"):
        assert runs.load(tmp_path / "run").model

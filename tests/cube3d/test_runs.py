"""A whole run through the command line with a tiny teacher, and what it refuses."""

import json
import shutil

import pytest
import torch
import yaml

from cube3d import run as runs
from cube3d.audit import check_rollout, check_split
from cube3d.cli import main
from cube3d.config import dump_settings, load_settings, parse_settings
from cube3d.errors import UserError
from cube3d.hints import command
from cube3d.model import CubeConfig, CubeModel, MLPModel, load_model
from cube3d.pairs import Pair, Split
from tests.cube3d.conftest import CUBE, TOPICS, TRAINING, train_in_one_and_two_processes


def refusal(capsys, *arguments):
    """The message of a command that fails as a user's error."""
    assert main([str(a) for a in arguments]) == 2
    return capsys.readouterr().err.partition("cube3d: ")[2]


def test_training_leaves_a_whole_run(trained_run, config_file):
    audit = json.loads((trained_run / "audit.json").read_text())
    assert len(audit) == 4
    assert all(check["passed"] for check in audit)
    given, resolved = (yaml.safe_load(p.read_text()) for p in (config_file, trained_run / "config.yaml"))
    assert resolved["cube"] == {**resolved["cube"], **given["cube"]}
    assert resolved["loss"]["temperature"] > 0, "defaults are written out too"
    opened = runs.load(trained_run)
    assert len(opened.pairs) == 2 * len(TOPICS)
    assert {i for part in vars(opened.split).values() for i in part} == set(range(len(opened.pairs)))


def test_asking_prints_the_best_answers_with_scores(trained_run, capsys):
    assert main(["ask", str(trained_run), "what is a river?", "--count", "4"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 4
    scores = [float(line.split("  ")[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert all("is known by its" in line for line in lines)


def test_asking_nothing_or_asking_an_untrained_run_is_refused(trained_run, tmp_path, capsys):
    assert "the question is empty" in refusal(capsys, "ask", trained_run, "  ")
    assert "holds no run" in refusal(capsys, "ask", tmp_path, "why?")
    assert "holds no run" in refusal(capsys, "evaluate", tmp_path)


def test_a_run_that_is_not_evaluated_has_no_report(config_file, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", "--config", str(config_file), "--out", str(folder), "training.epochs=3"]) == 0
    assert f"`{command('evaluate', folder)}` writes it" in refusal(capsys, "report", folder)


def test_a_folder_that_holds_something_is_not_written_over(trained_run, config_file, capsys):
    assert "is not empty" in refusal(capsys, "train", "--config", config_file, "--out", trained_run)
    assert "is a file" in refusal(capsys, "train", "--config", config_file, "--out", config_file)


@pytest.fixture
def begun(monkeypatch):
    """The folder and seed of each training that began; it ends at once."""
    found = []

    def train(run, progress):
        found.append((run.folder.name, run.settings.seed))
        run.folder.mkdir(parents=True, exist_ok=True)
        run.config_file.write_text(dump_settings(run.settings))

    monkeypatch.setattr("cube3d.run.train", train)
    return found


def test_several_seeds_are_a_run_each(config_file, tmp_path, begun):
    assert main(["train", "--config", str(config_file), "--out", str(tmp_path), "--seeds", "3,0,12"]) == 0
    assert begun == [("seed-3", 3), ("seed-0", 0), ("seed-12", 12)]


def test_resuming_several_seeds_begins_those_that_are_not_there(trained_run, config_file, tmp_path, begun, capsys):
    command = ["train", "--config", str(config_file), "--out", str(tmp_path), "--seeds", "0,1"]
    shutil.copytree(trained_run, tmp_path / "seed-0")
    assert "seed-0: is not empty" in refusal(capsys, *command)
    assert begun == []
    assert main([*command, "--resume"]) == 0
    assert begun == [("seed-0", 0), ("seed-1", 1)]
    assert "another configuration: cube.steps" in refusal(capsys, *command, "--resume", "cube.steps=3")


@pytest.mark.parametrize("seeds", ["", "0,", "0,0", "-1", "1.5", "0 1"])
def test_seeds_that_are_none_are_refused(seeds, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--out", str(tmp_path / "run"), "--seeds", seeds])
    assert "list of different seeds such as 0,1,2" in capsys.readouterr().err


def test_a_seed_is_said_in_one_way(tmp_path, capsys):
    message = refusal(capsys, "train", "--out", tmp_path / "run", "--seeds", "0,1", "seed=3")
    assert "two ways to say it" in message


def test_resuming_a_finished_run_changes_nothing(trained_run):
    before = load_model(CubeModel, trained_run / "model").state_dict()
    assert main(["train", "--resume", "--out", str(trained_run)]) == 0
    after = load_model(CubeModel, trained_run / "model").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(check["passed"] for check in json.loads((trained_run / "audit.json").read_text()))


def test_resuming_with_another_configuration_is_refused(trained_run, config_file, capsys):
    message = refusal(
        capsys, "train", "--resume", "--out", trained_run, "--config", config_file, "cube.steps=3", "seed=5"
    )
    assert "another configuration" in message
    assert "cube.steps" in message
    assert "seed" in message
    assert "cube.hidden" not in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cube.stepps=3", "did you mean 'steps'"),
        ("cube={shape: [3,3,3], lift: per_cell}", "27 cells"),
        ("cube={shape: [4,2,2], input: front, output: back, steps: 2}", "steps is 2, but it takes 3 from 'front'"),
        ("cube.boundary=open", "'walls', 'periodic', 'replicate'"),
        ("cube.backend=gpu", "'gpu'; valid: 'auto', 'native', 'cuda', 'triton', 'reference'"),
        ("data.pairs=[missing.jsonl]", "missing.jsonl: cannot be read"),
        ("data.test=0.01", "each part needs at least 2"),
        ("teachers.0.model=no-such-folder/model", "'minilm' or 'smollm2', which needs no network"),
        ("training.learning_rate=fast", "training.learning_rate"),
    ],
)
def test_a_wrong_setting_is_one_clear_message(override, message, config_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert message in refusal(capsys, "train", "--config", config_file, "--out", tmp_path / "run", override)
    assert not (tmp_path / "run").exists(), "the folder is free for the corrected call"


def test_a_failed_audit_ends_the_run_and_saves_no_model(config_file, tmp_path, capsys, monkeypatch):
    """A cube whose rollout changes nothing: the lattice is decoration."""
    monkeypatch.setattr("cube_kernels.layer.CubeLayer.forward", lambda self, x, drive=None, steps=None: x)
    folder = tmp_path / "run"
    message = refusal(capsys, "train", "--config", config_file, "--out", folder)
    assert "the audit failed" in message
    assert "the rollout changes the output" in message
    assert not (folder / "model").exists()
    failed = [c["name"] for c in json.loads((folder / "audit.json").read_text()) if not c["passed"]]
    assert "each parameter got a gradient" in failed


# Options of a run in which every loss and every kind of negative in a batch takes part.
IN_BATCH = [
    *("loss.mse=0.5", "loss.triplet=1", "loss.diversity=0.5", "loss.distillation=1"),
    "loss.negatives={pool: batch, choose: random, count: 4, mined: 2, memory: 12, ceiling: 0.999}",
    "training.curriculum.by=[length, rank]",
]


@pytest.mark.parametrize("overrides", [IN_BATCH, []], ids=["negatives of every kind", "the bank, and dropout"])
def test_two_processes_train_as_one(overrides, config_file, tmp_path):
    """torchrun gives the losses, the log and the model of one process: each loss is of the whole batch, with gradient
    through the vectors of the other process, and every kind of negative is the same for both."""
    arguments = ["train", "--config", str(config_file), *overrides]
    one, two = tmp_path / "one", tmp_path / "two"
    train_in_one_and_two_processes(arguments, one, two)
    first, second = (
        [e for e in runs.load(f).results("history") if "loss" in e or "eval_loss" in e] for f in (one, two)
    )
    assert len(first) == len(second) == 2 * TRAINING["epochs"]
    for expected, actual in zip(first, second, strict=True):
        compared = {name: v for name, v in expected.items() if "runtime" not in name and "per_second" not in name}
        assert {name: actual[name] for name in compared} == pytest.approx(compared, rel=2e-4, abs=1e-5)
    if overrides:
        assert {"loss_triplet", "loss_distillation", "loss_diversity", "competence"} <= set(first[0])
    models = [load_model(CubeModel, folder / "model").state_dict() for folder in (one, two)]
    for name, value in models[0].items():
        assert torch.allclose(models[1][name], value, atol=1e-4), name


def test_a_batch_that_the_processes_cannot_share_is_refused(config_file, tmp_path, monkeypatch):
    """Their number is read where the batch is divided."""
    monkeypatch.setattr("transformers.TrainingArguments.world_size", 3)
    run = runs.start(tmp_path / "run", load_settings(config_file))
    with pytest.raises(UserError, match="batch_size is 8, which 3 processes cannot share"):
        runs.train(run)


def test_transformers_own_auto_classes_load_a_trained_cube(trained_run):
    from transformers import AutoConfig, AutoModel

    assert isinstance(AutoConfig.from_pretrained(trained_run / "model"), CubeConfig)
    loaded = AutoModel.from_pretrained(trained_run / "model", local_files_only=True)
    run = runs.load(trained_run)
    assert isinstance(loaded, CubeModel)
    assert torch.equal(loaded.predict(run.parts.test), run.model.predict(run.parts.test))


def test_an_interrupt_says_how_to_go_on(config_file, tmp_path, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("cube3d.training.trainer.AnswerTrainer.training_step", interrupt)
    assert main(["train", "--config", str(config_file), "--out", str(tmp_path / "run")]) == 130
    assert "train --resume" in capsys.readouterr().err


def test_reading_a_property_fits_nothing(config_file, tmp_path):
    """What is not in the folder yet is asked for by a verb."""
    run = runs.start(tmp_path / "run", load_settings(config_file))
    for name in ("ensemble", "parts", "model"):
        with pytest.raises(UserError, match=f"{run.folder}"):
            getattr(run, name)
    fitted = runs.fit_teachers(run)
    assert not run.folder.exists()
    runs.train(run, progress=False)
    texts = [pair.question for pair in run.pairs]
    assert torch.equal(run.ensemble.questions(texts), fitted.questions(texts))


def test_the_split_audit_sees_a_shared_answer():
    pairs = [Pair("a?", "One.", "f:1"), Pair("b?", "one.", "f:2"), Pair("c?", "Two.", "f:3")]
    assert not check_split(pairs, [0, 1, 2], Split([0], [1], [2])).passed
    assert not check_split(pairs, [0, 0, 1], Split([0], [2], [1])).passed
    assert check_split(pairs, [0, 0, 1], Split([0, 1], [], [2])).passed


def test_the_rollout_audit_sees_a_readout_of_zero():
    model = CubeModel(CubeConfig(dim=8, cube=CUBE))
    assert not check_rollout(model, torch.randn(3, 8)).passed


def test_a_saved_model_comes_back_and_another_kind_is_refused(tmp_path):
    model = CubeModel(CubeConfig(dim=16, cube=CUBE, loss={"cosine": 2.0}))
    torch.nn.init.normal_(model.mapping.readout)
    model.save(tmp_path / "model")
    again = load_model(CubeModel, tmp_path / "model")
    x = torch.randn(3, 16)
    assert torch.equal(again.map(x), model.map(x))
    assert again.config.loss["cosine"] == 2.0
    assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
    with pytest.raises(UserError, match="not a"):
        load_model(MLPModel, tmp_path / "model")


@pytest.mark.parametrize("damage", ["cut", "other lattice", "no weights"])
def test_a_damaged_model_is_refused(damage, tmp_path):
    folder = tmp_path / "model"
    CubeModel(CubeConfig(dim=16, cube=CUBE)).save(folder)
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "no weights":
        weights.unlink()
    else:
        CubeModel(CubeConfig(dim=16, cube={**CUBE, "channels": 5})).save(tmp_path / "other")
        weights.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    told = r"\[.*5\] in the file .* of another lattice or rule" if damage == "other lattice" else "not a"
    with pytest.raises(UserError, match=told):
        load_model(CubeModel, folder)


def test_a_model_of_another_run_is_refused(trained_run, tmp_path):
    shutil.copytree(trained_run, tmp_path / "run")
    CubeModel(CubeConfig(dim=16, cube={**CUBE, "steps": 3})).save(tmp_path / "run" / "model")
    with pytest.raises(UserError, match="of another configuration: cube.steps differ"):
        assert runs.load(tmp_path / "run").model


def test_pairs_with_odd_line_separators_come_back(tmp_path, tiny_teacher):
    """U+2028 is no line's end in JSON."""
    path = tmp_path / "pairs.jsonl"
    records = [{"question": f"What\u2028is {i}?", "answer": f"It\x85is {i}."} for i in range(20)]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    teacher = {"model": str(tiny_teacher), "max_length": 16}
    values = {
        "model": "mapping",
        "data": {"pairs": [str(path)]},
        "teachers": [teacher],
        "cube": CUBE,
        "training": TRAINING,
    }
    started = runs.start(tmp_path / "run", parse_settings(values, "test"))
    runs.train(started, progress=False)
    assert runs.load(tmp_path / "run").pairs == started.pairs


def test_damaged_pairs_are_refused(trained_run, tmp_path):
    (tmp_path / "config.yaml").write_text((trained_run / "config.yaml").read_text())
    (tmp_path / "pairs.jsonl").write_text('{"question": "half')
    with pytest.raises(UserError, match="pairs.jsonl: damaged"):
        runs.load(tmp_path)


def test_nothing_of_the_answer_reaches_the_prediction(parts):
    model = CubeModel(CubeConfig(dim=24, cube=CUBE, loss={"negatives": {"pool": "batch"}}))
    torch.nn.init.normal_(model.mapping.readout)
    part = parts.train
    alone = model(part.question).prediction
    beside = model(part.question, answer_embedding=torch.randn_like(part.answer), group=part.group).prediction
    assert torch.equal(alone, beside)


def test_the_defaults_are_a_valid_configuration_for_the_embedded_teacher():
    settings = parse_settings({"model": "mapping"}, "defaults")
    CubeModel(CubeConfig(dim=384, cube=settings.cube.model_dump(), loss=settings.loss.model_dump()))

"""The search: what it goes through, how it chooses, that a kill loses nothing and that a mistake is told."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

import pytest
import yaml

from cube3d import run as runs
from cube3d.cli import main
from cube3d.config import Settings, dump_settings, load_settings
from cube3d.errors import StorageError, UserError
from cube3d.evaluation.evaluate import load_evaluations, summarize
from cube3d.experiments.space import Choices, grid, parse_space, samples
from cube3d.experiments.variants import measured, require_reached
from cube3d.files import locked, save_text
from cube3d.metrics import per_question

optuna = pytest.importorskip("optuna", reason="optuna, which searches, is not installed")

PLAN = {
    "space": {"training.learning_rate": [0.01, 0.003], "cube.shape": [[1, 2, 2], [3, 3, 3]]},
    "method": "grid",
    "seeds": [0, 1],
    "metric": "cosine",  # the MRR of a few questions has ties
}


def write_plan(folder, **changes):
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN | changes))
    return path


def search(plan_file, base_file, folder, *overrides):
    return main(["search", "--plan", str(plan_file), "--config", str(base_file), "--out", str(folder), *overrides])


def resume(folder):
    return main(["search", "--resume", "--out", str(folder)])


def load(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def finished(base_file, tmp_path_factory):
    """The folder of a grid that ran to its end without a break; the winner's test is proved by itself."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cube3d.experiments.search.tested", lambda trained, say: {"runs": len(trained)})
        assert search(write_plan(folder), base_file, folder / "search") == 0
    return folder / "search"


# A whole search


def test_every_combination_is_in_the_table_with_its_scores_or_the_reason(finished):
    points = load(finished / "results.json")
    assert {(p["changes"]["training.learning_rate"], tuple(p["changes"]["cube.shape"])) for p in points} == {
        (0.01, (1, 2, 2)),
        (0.003, (1, 2, 2)),
        (0.01, (3, 3, 3)),
        (0.003, (3, 3, 3)),
    }
    for point in points:
        assert ("27 cells" in point["infeasible"]) if point["changes"]["cube.shape"] == [3, 3, 3] else point["score"]
    with open(finished / "results.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["cosine"] for row in table] == [str(p.get("score", "")) for p in points]
    assert [row["cube.shape"] for row in table] == [json.dumps(p["changes"]["cube.shape"]) for p in points]
    assert [row["infeasible"] for row in table] == [p.get("infeasible", "") for p in points]


def test_the_scores_are_those_of_the_saved_runs_and_the_best_mean_wins(finished):
    points = [p for p in load(finished / "results.json") if "score" in p]
    for point in points:
        for seed, score in point["scores"].items():
            run = runs.load(finished / "runs" / point["runs"] / f"seed-{seed}")
            assert run.settings.training.learning_rate == point["changes"]["training.learning_rate"]
            assert run.settings.seed == int(seed)
            assert measured(run, run.parts.validation)["cosine"].mean() == pytest.approx(score)
            assert not run.training_folder.exists(), "the checkpoints of many runs would fill the disk"
        assert point["score"] == pytest.approx(mean(point["scores"].values()))
    assert len({point["score"] for point in points}) == 2
    winner = load(finished / "winner.json")
    assert winner["score"] == max(point["score"] for point in points)
    assert winner["test"] == {"runs": 2}


def test_no_seed_chooses_by_a_question_that_another_tests(finished):
    winner = load(finished / "winner.json")
    opened = [runs.load(finished / "runs" / winner["runs"] / f"seed-{seed}") for seed in winner["scores"]]
    first, second = opened
    assert first.split.test == second.split.test
    assert first.split.validation != second.split.validation
    for run in opened:
        assert not set(first.split.test) & {*run.split.train, *run.split.validation}


def test_a_search_leaves_its_pictures(finished):
    for name in ("importance", "parallel_coordinates"):
        assert (finished / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_going_on_with_a_finished_search_trains_and_tests_nothing(finished, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("nothing is left to do")

    before = {path: path.read_bytes() for path in (finished / "results.json", finished / "winner.json")}
    monkeypatch.setattr("cube3d.run.train", refuse)
    monkeypatch.setattr("cube3d.experiments.search.tested", refuse)
    assert resume(finished) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_a_killed_search_goes_on_to_the_same_result(finished, base_file, tmp_path, monkeypatch):
    """SIGKILL in the second epoch of the third training of four."""
    script = """
import os, signal, sys
from cube3d.cli import main
from cube3d.training.trainer import AnswerTrainer
step, steps = AnswerTrainer.training_step, []
def killed(*arguments, **options):
    steps.append(1)
    if len(steps) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments, **options)
AnswerTrainer.training_step = killed
main(sys.argv[2:])
"""
    folder = tmp_path / "search"
    run = runs.load(finished / "runs" / load(finished / "winner.json")["runs"] / "seed-0")
    steps = run.settings.training.epochs * math.ceil(len(run.split.train) / run.settings.training.batch_size)
    arguments = ["search", "--plan", write_plan(tmp_path), "--config", base_file, "--out", folder]
    killed = subprocess.run([sys.executable, "-c", script, str(2 * steps + steps // 2 + 1), *map(str, arguments)])
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "winner.json").exists()
    assert list(folder.glob("runs/*/seed-*/training/checkpoint-*")), "killed amid a training"
    monkeypatch.setattr("cube3d.experiments.search.tested", lambda trained, say: {"runs": len(trained)})
    assert resume(folder) == 0
    for name in ("results.json", "winner.json"):
        assert load(folder / name) == load(finished / name)


def test_a_point_killed_between_two_of_its_suggestions_comes_again_as_it_was(
    base_file, tmp_path, quick_training, monkeypatch
):
    """What was suggested of it is no whole point; the rest would be drawn at random."""
    plan = write_plan(tmp_path, space={"training.learning_rate": [0.1, 0.2, 0.3], "cube.steps": [1, 2]}, seeds=[0])
    suggest, suggested = Choices.suggest, []

    def killed(self, trial, name):
        suggested.append(name)
        if len(suggested) == 4:
            raise KilledError
        return suggest(self, trial, name)

    class KilledError(BaseException):
        """As after SIGKILL, nothing is told."""

    monkeypatch.setattr(Choices, "suggest", killed)
    with pytest.raises(KilledError):
        search(plan, base_file, tmp_path / "search")
    monkeypatch.setattr(Choices, "suggest", suggest)
    assert resume(tmp_path / "search") == 0
    changes = [point["changes"] for point in load(tmp_path / "search" / "results.json")]
    assert sorted((c["training.learning_rate"], c["cube.steps"]) for c in changes) == [
        (rate, steps) for rate in (0.1, 0.2, 0.3) for steps in (1, 2)
    ]
    assert len(quick_training) == 6


@pytest.mark.parametrize("name", ["a?b", "a#b%20c", "a@b:c", "é ü", "{SCHEMA_DIR}"])
def test_a_study_lies_in_its_own_folder_whatever_that_is_called(name, base_file, tmp_path, quick_training):
    plan = write_plan(tmp_path, seeds=[0], space={"training.learning_rate": [0.1]})
    assert search(plan, base_file, tmp_path / name) == 0
    assert (tmp_path / name / "study.sqlite").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"plan.yaml", name}


def test_a_folder_where_a_search_is_going_on_is_refused(finished, capsys):
    with locked(finished):
        assert "another process is at work in it" in refusal(capsys, "search", "--resume", "--out", finished)


def test_a_search_killed_between_its_base_and_its_plan_begins_anew(base_file, tmp_path, quick_training, capsys):
    plan, folder = write_plan(tmp_path, seeds=[0]), tmp_path / "search"
    save_text(folder / "base.yaml", dump_settings(load_settings(base_file)))
    assert search(plan, base_file, folder) == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "base.yaml").write_text("mine")
    assert "is not empty" in refusal(
        capsys, "search", "--plan", plan, "--config", base_file, "--out", tmp_path / "mine"
    )


# Several workers


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory):
    """The URL of a server of our own."""
    pytest.importorskip("psycopg", reason="psycopg, which speaks to PostgreSQL, is not installed")
    programs = {name: shutil.which(name) for name in ("initdb", "pg_ctl")}
    for name in programs:
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))  # where Debian has them
        programs[name] = programs[name] or (str(found[-1]) if found else None)
    if None in programs.values():
        pytest.skip("PostgreSQL is not installed: no initdb or pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path must be short
    user = []
    if os.geteuid() == 0:  # the server refuses to run as root
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chown(folder, 65534, 65534)
    data = folder / "data"
    options = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    subprocess.run([*user, programs["initdb"], "-D", data, "-U", "cube3d", "-A", "trust"], **options)
    control = [*user, programs["pg_ctl"], "-D", data, "-w"]
    subprocess.run([*control, "-o", f"-k {folder} -c listen_addresses=''", "-l", folder / "log", "start"], **options)
    yield f"postgresql+psycopg://cube3d@/postgres?host={folder}"
    subprocess.run([*control, "-m", "immediate", "stop"], **options)
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def storage(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql")
    return f"sqlite:///{tmp_path}/shared.sqlite" if request.param == "sqlite" else f"{tmp_path}/shared.journal"


# Trains in no time, is killed as its n-th training begins, and notes each training that ended.
WORKER = """
import os, signal, sys
from pathlib import Path
import torch
from cube3d import run as runs
from cube3d.cli import main
from cube3d.experiments import search, storage
storage.HEARTBEAT, search.POLL = 5, 0.2
log, last = Path(sys.argv[1]), int(sys.argv[2])
begun = []
def train(run, progress=True):
    begun.append(run)
    if len(begun) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    runs._write_inputs(run, runs.fit_teachers(run))
    model = runs.new_cube(run.settings, run.parts.dim)
    torch.nn.init.normal_(model.mapping.readout, std=run.settings.training.learning_rate)
    model.save(run.model_folder)
    with log.open("a") as file:
        print(run.settings.training.learning_rate, run.settings.cube.steps, file=file)
runs.train = train
search.tested = lambda trained, say: {"runs": len(trained)}
sys.exit(main(sys.argv[3:]))
"""


def test_workers_share_a_search_and_a_killed_one_s_point_is_done_by_another(storage, base_file, tmp_path):
    """Every point once. A journal file does not know who is dead: somebody says --alone."""
    space = {"training.learning_rate": [0.1, 0.2, 0.3], "cube.steps": [1, 2]}
    plan, log = write_plan(tmp_path, space=space, seeds=[0]), tmp_path / "log"

    def worker(name, last, *options):
        return subprocess.Popen(
            [
                *(sys.executable, "-c", WORKER, str(log), str(last), "search", "--plan", str(plan)),
                *("--config", str(base_file), "--out", str(tmp_path / name), "--storage", storage, *options),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )

    killed = worker("killed", 2)
    _, told = killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL, told
    if storage.endswith(".journal"):
        others = [worker("a", 0)]
        _, told = others[0].communicate(timeout=300)
        assert "--resume --alone takes over what they had" in told
        shutil.rmtree(tmp_path / "a" / "runs" / "unwritten", ignore_errors=True)
        last = subprocess.run(
            [
                *(sys.executable, "-c", WORKER, str(log), "0", "search", "--resume", "--alone"),
                *("--out", str(tmp_path / "a"), "--storage", storage),
            ]
        )
        assert last.returncode == 0
        finished = ["a"]
    else:
        others = [worker(name, 0) for name in "ab"]
        for other in others:
            _, told = other.communicate(timeout=300)
            assert other.returncode == 0, told
        finished = ["a", "b"]
    points = sorted(log.read_text().splitlines())
    assert points == sorted(f"{rate} {steps}" for rate in (0.1, 0.2, 0.3) for steps in (1, 2))
    for name in finished:
        assert len(load(tmp_path / name / "results.json")) == 6


def test_a_storage_that_cannot_be_used_is_named_without_its_password(base_file, tmp_path, quick_training, capsys):
    plan = write_plan(tmp_path, seeds=[0])
    for number, (storage, message) in enumerate(
        [
            ("nonsense", "expected the URL of a database"),
            ("nosuch://a:secret@b/c", "nosuch://a:***@b/c: the search cannot be kept there"),
            (f"sqlite:///{tmp_path}/missing/x.sqlite", "the search cannot be kept there"),
        ]
    ):
        out = tmp_path / str(number)
        found = refusal(capsys, "search", "--plan", plan, "--config", base_file, "--out", out, "--storage", storage)
        assert message in found
        assert "secret" not in found


def test_a_search_goes_on_in_the_storage_it_began_in(finished, base_file, tmp_path, quick_training, capsys):
    plan, storage = write_plan(tmp_path, seeds=[0]), f"sqlite:///{tmp_path}/shared.sqlite"
    assert search(plan, base_file, tmp_path / "search", "--storage", storage) == 0
    resumed = ["search", "--resume", "--out", tmp_path / "search"]
    assert f"give --storage {storage}" in refusal(capsys, *resumed)
    assert "leave out --storage" in refusal(capsys, "search", "--resume", "--out", finished, "--storage", storage)


# What is chosen by, and when the test part is read


def test_only_the_winner_meets_the_test_part_and_once(base_file, tmp_path, quick_training, monkeypatch):
    scored, tested = [], []

    def spy(prediction, part, center):
        scored.append(set(part.group.tolist()))
        return per_question(prediction, part, center)

    monkeypatch.setattr("cube3d.experiments.variants.per_question", spy)
    monkeypatch.setattr("cube3d.experiments.search.tested", lambda trained, say: tested.extend(trained) or {})
    folder = tmp_path / "search"
    assert search(write_plan(tmp_path), base_file, folder) == 0
    winner = load(folder / "winner.json")
    assert [run.folder for run in tested] == [folder / "runs" / winner["runs"] / f"seed-{seed}" for seed in (0, 1)]
    held_out = set(tested[0].parts.test.group.tolist())
    assert len(scored) == 4
    assert not any(groups & held_out for groups in scored)
    assert resume(folder) == 0
    assert len(tested) == 2


def test_the_winner_is_tested_over_its_seeds_together_beside_the_baselines(two_runs):
    from cube3d.experiments.search import tested

    def say(line):
        raise AssertionError(f"{line}: it is there")

    results = tested([runs.load(folder) for folder in two_runs], say)
    assert results == summarize(load_evaluations([runs.load(folder) for folder in two_runs]))
    assert results["seeds"] == [0, 1]


# The estimator


def test_an_interrupted_estimator_proposes_what_an_uninterrupted_one_does(
    base_file, tmp_path, quick_training, monkeypatch
):
    plan = write_plan(
        tmp_path, method="tpe", trials=12, seeds=[0], space={"training.learning_rate": {"log": [1e-3, 0.3]}}
    )
    assert search(plan, base_file, tmp_path / "whole") == 0
    assert len(quick_training) == 12

    train = runs.train

    def interrupted(run, progress=True):
        if len(quick_training) == 12 + 11:
            raise KeyboardInterrupt
        train(run, progress)

    monkeypatch.setattr("cube3d.run.train", interrupted)
    assert search(plan, base_file, tmp_path / "broken") == 130
    assert len(load(tmp_path / "broken" / "results.json")) == 11
    monkeypatch.setattr("cube3d.run.train", train)
    assert resume(tmp_path / "broken") == 0
    assert load(tmp_path / "broken" / "results.json") == load(tmp_path / "whole" / "results.json")
    assert len(quick_training) == 2 * 12


def test_a_point_that_comes_again_is_not_trained_again(base_file, tmp_path, quick_training, capsys):
    plan = write_plan(tmp_path, method="tpe", trials=6, seeds=[4], space={"training.learning_rate": [0.1, 0.2]})
    assert search(plan, base_file, tmp_path / "search") == 0
    assert len(quick_training) == len(load(tmp_path / "search" / "results.json")) <= 2
    assert "as before" in capsys.readouterr().out


# Mistakes


def refusal(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err.partition("cube3d: ")[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"training.learnin_rate": [0.1]}}, "did you mean 'learning_rate'"),
        ({"space": {"trainin.learning_rate": [0.1]}}, "did you mean 'training'"),
        ({"space": {"cube.steps": [2, 3.5]}}, "cube.steps: Input should be a valid integer, got 3.5"),
        ({"space": {"cube.steps": {"uniform": [1, 4]}}}, "{uniform"),
        ({"space": {"seed": [3]}}, "seed: set to 3, but the run has 0"),
        ({"space": {"training.learning_rate": {"log": [0.1, 0.2]}}}, "a grid needs a list of choices"),
        ({"space": {}}, "space: "),
        ({"spaces": {}}, "did you mean 'space'"),
        ({"metric": "loss"}, "metric is 'loss'; valid: 'cosine', 'centered_cosine', 'mrr'"),
        ({"method": "tpe"}, "method tpe needs the number of trials"),
        ({"trials": 3}, "method grid takes every combination"),
        ({"method": "random"}, "'grid' or 'tpe'"),
        ({"seeds": [1, 1]}, "repeats a seed"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_a_wrong_plan_is_one_clear_message_and_writes_nothing(changes, message, base_file, tmp_path, capsys):
    plan = write_plan(tmp_path, **changes)
    if "{uniform" in message:  # its ends are made real numbers, which the field refuses
        plan = write_plan(tmp_path, **changes, method="tpe", trials=2)
        message = "cube.steps: Input should be a valid integer, got 1.0"
    arguments = ["search", "--plan", plan, "--config", base_file, "--out", tmp_path / "search"]
    assert message in refusal(capsys, *arguments)
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    "value",
    [
        *([], [1, 1], [True, 1], 3, "0.1", {}, {"log": [0, 1]}, {"log": [1]}, {"uniform": [2, 1]}, {"int": [1, 2.5]}),
        *({"uniform": [False, True]}, {"normal": [0, 1]}, {"log": [0.1, 1], "int": [1, 2]}, {"uniform": ["a", "b"]}),
    ],
)
def test_a_dimension_that_is_none_is_named(value):
    with pytest.raises(UserError, match="cube.steps"):
        parse_space({"cube.steps": value})


def test_choices_may_be_lists_and_sections():
    space = parse_space({"cube.shape": [[1, 2, 2], [2, 2, 2]], "loss.negatives": [{"memory": 8}], "cube.steps": [None]})
    assert samples(space["cube.shape"]) == [[1, 2, 2], [2, 2, 2]]
    study = optuna.create_study()
    for point in grid(space):
        study.enqueue_trial(point)
    trials = [study.ask() for _ in range(2)]
    points = [{name: dimension.suggest(trial, name) for name, dimension in space.items()} for trial in trials]
    assert points == [
        {"cube.shape": shape, "loss.negatives": {"memory": 8}, "cube.steps": None} for shape in ([1, 2, 2], [2, 2, 2])
    ]


def test_a_change_that_the_resolved_settings_lack_is_told():
    settings = Settings()
    require_reached(settings, {"loss.negatives": {"memory": 0}, "cube.shape": [2, 2, 2]})
    for name, value in (("cube.steps", 5), ("cube.shape", [2, 2]), ("loss.negatives", {"memory": 3})):
        with pytest.raises(UserError, match=f"^{name}: set to .* but the run has"):
            require_reached(settings, {name: value})


def test_a_change_that_gets_lost_on_the_way_to_the_run_ends_the_search(
    base_file, tmp_path, quick_training, monkeypatch, capsys
):
    start = runs.start

    def forgetful(folder, settings):
        return start(folder, settings.model_copy(update={"training": Settings(model="mapping").training}))

    monkeypatch.setattr("cube3d.run.start", forgetful)
    message = refusal(
        capsys, "search", "--plan", write_plan(tmp_path), "--config", base_file, "--out", tmp_path / "search"
    )
    assert "training.learning_rate: set to 0.01, but the run has 0.002" in message
    assert not quick_training


def test_a_point_that_holds_out_other_questions_is_not_compared(base_file, tmp_path, quick_training):
    plan = write_plan(tmp_path, space={"data.validation": [0.2, 0.3]})
    assert search(plan, base_file, tmp_path / "search") == 0
    same, other = load(tmp_path / "search" / "results.json")
    assert "score" in same
    assert "it holds out other questions than the base" in other["infeasible"]


def test_a_full_disk_ends_the_search_and_is_no_point_s_fault(base_file, tmp_path, quick_training, monkeypatch, capsys):
    def full(run, progress=True):
        raise StorageError("no space left on device")

    train = runs.train
    monkeypatch.setattr("cube3d.run.train", full)
    arguments = ["search", "--plan", write_plan(tmp_path), "--config", base_file, "--out", tmp_path / "search"]
    assert "no space left" in refusal(capsys, *arguments)
    monkeypatch.setattr("cube3d.run.train", train)
    assert resume(tmp_path / "search") == 0
    assert sum("score" in point for point in load(tmp_path / "search" / "results.json")) == 2


def test_a_space_without_a_trainable_point_is_told_with_the_reason(base_file, tmp_path, capsys, quick_training):
    plan = write_plan(tmp_path, space={"cube.shape": [[3, 3, 3], [1, 1, 5]]})
    message = refusal(capsys, "search", "--plan", plan, "--config", base_file, "--out", tmp_path / "search")
    assert "no point of the space could be trained" in message
    assert "27 cells" in message


def test_a_base_that_cannot_be_trained_is_told_before_anything_is_written(base_file, tmp_path, capsys):
    arguments = ["search", "--plan", write_plan(tmp_path), "--config", base_file, "--out", tmp_path / "search"]
    assert "27 cells" in refusal(capsys, *arguments, "cube.shape=[3,3,3]")
    assert not (tmp_path / "search").exists()


def test_what_a_search_needs_is_asked_for(finished, base_file, tmp_path, capsys):
    plan = write_plan(tmp_path)
    assert "--plan is missing" in refusal(capsys, "search", "--config", base_file, "--out", tmp_path / "search")
    assert "is not empty" in refusal(capsys, "search", "--plan", plan, "--out", finished)
    assert "nothing was begun here" in refusal(capsys, "search", "--resume", "--out", tmp_path / "search")
    assert "give --out alone" in refusal(capsys, "search", "--resume", "--out", finished, "cube.steps=3")

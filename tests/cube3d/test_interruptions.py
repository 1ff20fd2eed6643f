"""Work that takes long can be interrupted at any moment, and ends as if it had not been.

A process is killed, or interrupted as by Ctrl-C, when it touches its files for the n-th time, n drawn at random, some
times in a row. Then it goes on by the command that it printed (after a kill: that it would have printed).
"""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from cube3d.cli import main
from tests.cube3d.forked import Forked

ROOT = Path(__file__).parents[2]

TOUCHING = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "sqlite3.connect"}


def interrupted(folder, moment, number, arguments):
    """Runs a command, counts what the process does to files below a folder, and ends it at one of these moments."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    touched = 0

    def watch(event, given):
        nonlocal touched
        if event in TOUCHING and any(isinstance(g, (str, bytes)) and folder in os.fsdecode(g) for g in given):
            touched += 1
        elif event != "import" or not touched:  # imports in between are moments, too
            return
        else:
            touched += 1
        if touched == moment:
            os.kill(os.getpid(), number)

    sys.addaudithook(watch)
    status = main(arguments)
    print(f"touched {touched} times", file=sys.stderr)
    return status


AFRESH = """
import sys
from tests.cube3d.test_interruptions import interrupted
folder, moment, number, *arguments = sys.argv[1:]
sys.exit(interrupted(folder, int(moment), int(number), arguments))
"""


def afresh(folder, moment, number, arguments):
    """In a new interpreter."""
    given = [folder, str(moment), str(number), *arguments]
    return subprocess.run([sys.executable, "-c", AFRESH, *given], cwd=ROOT, capture_output=True, text=True, timeout=600)


def forked(*arguments):
    return Forked(interrupted, *arguments).end()


def run(start, arguments, folder, moment=0, number=0):
    return start(str(folder), moment, int(number), [*map(str, arguments)])


def without_times(value):
    """What a run measured, without how long it took; a resumed run's last entry is of its last process alone."""
    if isinstance(value, dict):
        left_out = ("runtime", "per_second", "train_loss", "total_flos", "questions_a_second")
        return {k: without_times(v) for k, v in value.items() if not any(name in k for name in left_out)}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def results(folder):
    """Everything that the commands leave for their users below a folder, and nothing that is only for going on."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or "training" in name or path.name in (".lock", "study.sqlite", "report.html"):
            continue
        if path.suffix == ".json":
            found[name] = without_times(json.loads(path.read_text()))
        elif path.suffix == ".safetensors":
            found[name] = {key: tensor.tolist() for key, tensor in load_file(path).items()}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def plans(tmp_path_factory, config_file):
    folder = tmp_path_factory.mktemp("plans")
    config = yaml.safe_load(config_file.read_text())
    config["training"]["epochs"] = 2
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    space = {"training.learning_rate": [0.01, 0.003], "cube.steps": [1, 2]}
    search = {"space": space, "method": "grid", "seeds": [0], "metric": "cosine"}
    (folder / "search.yaml").write_text(yaml.safe_dump(search))
    (folder / "ablate.yaml").write_text(yaml.safe_dump({"changes": {"cube.steps": [1]}, "seeds": [0, 1]}))
    (folder / "texts.txt").write_text("".join(f"what is a {a} {b}?\n" for a in range(100) for b in "abcdefghij" * 6))
    return folder


@pytest.fixture
def begin(request, config_file, reader_config_file, plans, tmp_path):
    """Arguments of a command that works in a folder, and that folder with what it needs."""

    def begin(command, name):
        folder = tmp_path / name / "work"  # of the same length, however it is named
        if command.startswith("evaluate"):
            source = "reader_run" if command == "evaluate reader" else "trained_run"
            shutil.copytree(request.getfixturevalue(source), folder)
            return ["evaluate", folder], folder
        if command == "embed":
            folder.mkdir(parents=True)
            return [
                "embed",
                request.getfixturevalue("reader_run"),
                plans / "texts.txt",
                "--out",
                folder / "v.npy",
            ], folder
        if command.startswith("train"):
            config = reader_config_file if command == "train reader" else config_file
            return ["train", "--config", config, "--out", folder], folder
        plan = ["--plan", plans / f"{command}.yaml", "--config", plans / "config.yaml"]
        return [command, *plan, "--out", folder], folder

    return begin


def ends_alike(command, begin, times, seed, start):
    """``start`` is of all processes but the last, which is new in any case: it goes on from what is on disk alone."""
    draw = random.Random(f"{command} {seed}")
    arguments, whole = begin(command, "whole")
    undisturbed = run(start, arguments, whole)
    assert undisturbed.returncode == 0, undisturbed.stderr
    moments = int(re.search(r"touched (\d+) times", undisturbed.stderr)[1])
    arguments, folder = begin(command, "other")
    given = arguments
    for number in draw.choices([signal.SIGKILL, signal.SIGINT], k=times):
        moment = draw.randint(1, max(2, moments // 2))
        ended = run(start, given, folder, moment, number)
        where = f"{command}, {number.name} at {moment} of {moments}: {ended.stdout[-500:]}\n{ended.stderr[-3000:]}"
        if ended.returncode == 0:  # the moment was never reached
            break
        assert ended.returncode == (-number if number == signal.SIGKILL else 130), where
        if number == signal.SIGINT:
            assert "Traceback" not in ended.stderr, where
            printed = shlex.split(re.search(r"interrupted; `(.*)` goes on", ended.stderr)[1])
            assert printed[:3] == [sys.executable, "-m", "cube3d"], where
            given = printed[3:]
        elif ((folder / "config.yaml").exists() and command.startswith("train")) or (folder / "plan.yaml").exists():
            given = [arguments[0], "--resume", "--out", folder]
        else:
            given = arguments
    ended = run(afresh, given, folder)
    assert ended.returncode == 0, f"{where}\nthen {given}: {ended.stderr[-3000:]}"
    expected, actual = results(whole), results(folder)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name] == value, f"{command}: {name} differs"


COMMANDS = ["train mapping", "train reader", "search", "ablate", "evaluate mapping", "embed"]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_interrupted_ends_as_if_it_had_not_been(command, begin):
    ends_alike(command, begin, times=1, seed=0, start=forked)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("command", [*COMMANDS, "evaluate reader"])
def test_what_is_interrupted_often_ends_as_if_it_had_not_been(command, seed, begin):
    ends_alike(command, begin, times=5, seed=seed, start=afresh)

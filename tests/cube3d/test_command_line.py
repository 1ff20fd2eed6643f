"""The command line as a shell meets it: closed and narrow outputs, hints to copy, folders that are in use."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cube3d import run as runs
from cube3d.cli import main
from cube3d.config import load_settings
from cube3d.errors import BusyError, UserError
from cube3d.files import LOCK, locked, replacing, save_text
from cube3d.hints import command
from cube3d.teachers.cache import cache_folder

ROOT = Path(__file__).parents[2]


def shell(line, **environment):
    """A line of shell, with ``cube3d`` as a function."""
    return subprocess.run(
        ["bash", "-c", f'cube3d() {{ {shlex.quote(sys.executable)} -m cube3d "$@"; }}\n{line}'],
        cwd=ROOT,
        capture_output=True,
        timeout=300,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def accented(make_run, tmp_path_factory):
    """A run whose answers have letters that ASCII has not."""
    folder = tmp_path_factory.mktemp("accented")
    records = [{"question": f"what is {i}?", "answer": f"Ça, c’est le numéro {i}."} for i in range(12)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return make_run(folder / "run", folder / "pairs.jsonl").folder


# Outputs


def test_an_output_that_is_closed_early_ends_the_answers_without_a_word(accented, tmp_path):
    (tmp_path / "questions").write_text("what is 3?\n" * 3000)
    ended = shell(f"cube3d ask {accented} --file {tmp_path / 'questions'} | head -1; echo ${{PIPESTATUS[0]}}")
    assert ended.stdout.decode() == "what is 3?\n141\n"
    assert b"Traceback" not in ended.stderr
    assert b"BrokenPipe" not in ended.stderr


def test_a_full_output_is_told(accented):
    ended = shell(f"cube3d ask {accented} 'what is 3?' > /dev/full")
    assert ended.returncode == 2
    assert b"cube3d: the output cannot be written: No space left on device" in ended.stderr


def test_letters_that_the_output_has_not_are_escaped_and_lose_no_answer(accented):
    ended = shell(f"cube3d ask {accented} 'what is 3?' --count 2", PYTHONIOENCODING="ascii")
    assert ended.returncode == 0
    lines = ended.stdout.decode("ascii").splitlines()
    assert len(lines) == 2
    assert all("\\xc7a, c\\u2019est le num\\xe9ro" in line for line in lines)


def test_json_is_utf_8_whatever_the_output_is(accented):
    ended = shell(f"cube3d ask {accented} 'what is é?' --json", PYTHONIOENCODING="ascii")
    record = json.loads(ended.stdout.decode("utf-8"))
    assert record["question"] == "what is é?"
    assert record["answers"][0]["text"].startswith("Ça, c’est")


# Hints


@pytest.mark.parametrize("name", ["plain", "with space", "it's", "a?b", "$HOME", "-dash"])
def test_a_command_in_a_message_survives_the_shell(name):
    line = command("evaluate", Path(name))
    printed = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines() == [
        sys.executable,
        "-m",
        "cube3d",
        "evaluate",
        f"./{name}" if name[0] == "-" else name,
    ]


def test_under_torchrun_the_hint_is_of_torchrun(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert command("train", "--resume") == "torchrun --nproc-per-node 2 -m cube3d train --resume"
    assert command("evaluate", "r") == "torchrun --nproc-per-node 2 -m cube3d evaluate r"
    assert command("ask", "r").endswith("-m cube3d ask r")


def test_each_of_several_hosts_has_a_hint_of_its_own(monkeypatch):
    told = {"LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2", "GROUP_RANK": "1"}
    for name, value in {**told, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    torchrun = "torchrun --nproc-per-node 4 --nnodes 2 --node-rank 1 --master-addr 10.0.0.1 --master-port 29500"
    assert command("train", "--resume") == f"{torchrun} -m cube3d train --resume"


# Interrupts


INTERRUPTED_BY_AN_IMPORT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
module, sys.argv = sys.argv[1], ["cube3d", "ask", "nowhere", "what?"]
def watch(event, arguments):
    if event == "import" and arguments[0] == module:
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(watch)
"""

BY_MODULE = "import runpy; runpy.run_module('cube3d', run_name='__main__', alter_sys=True)"
home, name = re.search(r'^cube3d = "(.*):(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE).groups()
BY_SCRIPT = f"from {home} import {name}; sys.exit({name}())"


@pytest.mark.parametrize("start", [BY_MODULE, BY_SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize("module", ["cube3d.cli", "torch", "transformers"])
def test_an_interrupt_while_python_imports_is_one(module, start):
    program = [sys.executable, "-c", INTERRUPTED_BY_AN_IMPORT + start, module]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr in ("", "cube3d: interrupted\n")


def test_an_interrupt_that_a_library_takes_for_its_own_failure_is_one(monkeypatch, capsys):
    """As transformers does while it is imported."""

    def load(folder):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ModuleNotFoundError("Could not import module 'PreTrainedModel'") from error

    monkeypatch.setattr("cube3d.answering.answer.load", load)
    assert main(["ask", "runs/mine", "what?"]) == 130
    assert capsys.readouterr().err == "cube3d: interrupted\n"


@pytest.mark.parametrize("after", [0, 1])
def test_the_hint_of_interrupted_seeds_goes_on_with_them(after, config_file, tmp_path, monkeypatch, capsys):
    done = []
    train = runs.train

    def interrupted(run, progress):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(run.settings.seed)
        save_text(run.config_file, config_file.read_text())

    monkeypatch.setattr("cube3d.run.train", interrupted)
    out = tmp_path / "with space"
    given = ["train", "--config", str(config_file), "--out", str(out), "--seeds", "0,1", "training.epochs=3"]
    assert main(given) == 130
    hint = capsys.readouterr().err.split("`")[1]
    monkeypatch.setattr("cube3d.run.train", train)
    if after:
        (out / "seed-0" / "config.yaml").unlink()  # what the stand-in left is no run
    assert main(shlex.split(hint)[3:]) == 0
    assert all((out / f"seed-{seed}" / "model").is_dir() for seed in (0, 1))


# Folders in use, and killed before they were


HOLDS = """
import sys, time
from pathlib import Path
from cube3d.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(trained_run):
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(trained_run)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_run_that_another_process_has_is_refused_by_name_until_that_dies(held, trained_run):
    with pytest.raises(BusyError, match=f"{trained_run}: another process is at work in it"), locked(trained_run):
        pass
    held.kill()
    held.wait()
    with locked(trained_run):
        pass


def test_training_and_evaluating_respect_the_lock(config_file, trained_run, tmp_path, capsys):
    run = runs.start(tmp_path / "run", load_settings(config_file))
    with locked(run.folder):
        assert main(["train", "--config", str(config_file), "--out", str(run.folder)]) == 2
        assert "another process is at work in it" in capsys.readouterr().err
    with locked(trained_run):
        assert main(["evaluate", str(trained_run)]) == 2
        assert "another process is at work in it" in capsys.readouterr().err


def test_a_run_killed_before_it_had_its_inputs_goes_on(config_file, tmp_path):
    settings = load_settings(config_file)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).touch()
    (folder / ".config.yaml.partial-1a2b").write_text("ha")
    run = runs.start(folder, settings)  # nothing was written yet
    save_text(run.config_file, (config_file).read_text())
    again = runs.load(folder)
    assert again.pairs == run.pairs
    runs.train(again, progress=False)
    assert runs.load(folder).pairs == run.pairs


def test_a_run_of_other_settings_that_began_meanwhile_is_not_taken_over(config_file, tmp_path):
    first = runs.start(tmp_path / "run", load_settings(config_file))
    second = runs.start(tmp_path / "run", load_settings(config_file, ["seed=5"]))
    runs._write_inputs(first, runs.fit_teachers(first))
    with pytest.raises(UserError, match="holds a run of other settings"):
        runs.train(second)


# Modes, home, seeds


def test_files_follow_the_umask(tmp_path, make_run, pairs_file):
    before = os.umask(0o027)
    try:
        run = make_run(tmp_path / "run", pairs_file)
        with replacing(tmp_path / "folder") as temporary:
            (temporary / "inner").mkdir(parents=True)
    finally:
        os.umask(before)
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert {"model.safetensors", "answers.safetensors", "ensemble.safetensors"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}
    assert stat.S_IMODE((tmp_path / "folder" / "inner").stat().st_mode) == 0o750


def test_checkpoints_follow_the_umask(trained_run):
    mask = os.umask(0o022)
    os.umask(mask)
    files = [path for path in (trained_run / "training").rglob("*") if path.is_file()]
    assert any(path.name == "model.safetensors" for path in files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~mask}


def test_without_a_home_the_variable_that_helps_is_named(monkeypatch):
    for name in ("CUBE3D_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(UserError, match="no home folder for the teacher cache; CUBE3D_CACHE names one"):
        cache_folder()


@pytest.mark.parametrize("override", ["seed=4294967296", "seed=-1", "data.test_seed=4294967296"])
def test_a_seed_that_numpy_does_not_take_is_refused_with_the_range(override, config_file):
    with pytest.raises(UserError, match="seed: a seed is a whole number from 0 to 4294967295, got"):
        load_settings(config_file, [override])
    assert load_settings(config_file, ["seed=4294967295"]).seed == 4294967295

"""Training and evaluating on two hosts: two network namespaces, a cable (veth), and only torchrun between."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cube3d import run as runs
from cube3d.cli import main
from cube3d.config import load_settings
from cube3d.errors import UserError
from cube3d.evaluation.evaluate import evaluate, load_evaluations
from tests.cube3d.conftest import ENDS_ITS_PROCESS_GROUP

ROOT = Path(__file__).parents[2]

ADDRESSES = ("10.213.0.1", "10.213.0.2")


def ip(*words, **options):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True, **options)


@pytest.fixture
def hosts():
    """For each host, the words before a command that is to run there, and its end of the cable."""
    names = [f"cube{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs iproute2 and the right to make network namespaces ({getattr(error, 'stderr', error)})")
    try:
        ip("link", "add", names[0], "netns", names[0], "type", "veth", "peer", "name", names[1], "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", name)
            for device in ("lo", name):
                ip("-n", name, "link", "set", device, "up")
        yield [(["ip", "netns", "exec", name], name) for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def start(host, command):
    there, cable = host
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [*there, *command],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "GLOO_SOCKET_IFNAME": cable, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_on_both(hosts, program, arguments):
    meet = ["--nproc-per-node=1", f"--master-addr={ADDRESSES[0]}", "--master-port=29533", "--no-python"]
    return [
        start(host, ["torchrun", "--nnodes=2", f"--node-rank={rank}", *meet, sys.executable, "-c", program, *arguments])
        for rank, host in enumerate(hosts)
    ]


def end(started):
    """What each host printed, on stdout."""
    ends = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], ends
    return [output for output, _ in ends]


def losses(folder):
    return [e["eval_loss"] for e in runs.load(folder).results("history") if "eval_loss" in e]


def test_two_hosts_train_and_evaluate_as_one(hosts, config_file, tmp_path):
    arguments = ["train", "--config", str(config_file)]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*arguments, "--out", str(one)]) == 0
    printed = end(start_on_both(hosts, ENDS_ITS_PROCESS_GROUP, [*arguments, "--out", str(two)]))
    for rank, lines in enumerate(printed):
        next_command = f"--node-rank {rank} --master-addr {ADDRESSES[0]} --master-port 29533 -m cube3d evaluate {two}"
        assert next_command in lines
    assert len(losses(one)) > 1
    assert losses(two) == pytest.approx(losses(one), rel=2e-4)
    shutil.copytree(two, tmp_path / "again")
    first, second = end(start_on_both(hosts, ENDS_ITS_PROCESS_GROUP, ["evaluate", str(two)]))
    assert "report: " in first
    assert second == ""
    evaluate(runs.load(tmp_path / "again"))
    expected, found = (load_evaluations([runs.load(folder)])[0].values for folder in (tmp_path / "again", two))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name]["cosine"] == pytest.approx(values["cosine"], abs=1e-3), name


# Ends as by Ctrl-C when a checkpoint is there.
INTERRUPTED = """
import os, signal, sys
from cube3d.cli import main
from cube3d.training.trainer import AnswerTrainer
signal.signal(signal.SIGINT, signal.default_int_handler)
step, done = AnswerTrainer.training_step, []
def training_step(*arguments, **options):
    done.append(0)
    if len(done) == 4:
        os.kill(os.getpid(), signal.SIGINT)
    return step(*arguments, **options)
AnswerTrainer.training_step = training_step
sys.exit(main(sys.argv[1:]))
"""


def test_what_is_interrupted_on_two_hosts_goes_on_by_the_command_that_each_prints(hosts, config_file, tmp_path):
    arguments = ["train", "--config", str(config_file)]
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    began = start_on_both(hosts, INTERRUPTED, [*arguments, "--out", str(tmp_path / "two")])
    said = [process.communicate(timeout=300)[1] for process in began]
    hints = [re.search(r"interrupted; `(.*)` goes on", errors)[1] for errors in said]
    end([start(host, shlex.split(hint)) for host, hint in zip(hosts, hints, strict=True)])
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-4)


def test_a_folder_that_a_host_does_not_share_is_refused(config_file, tmp_path, monkeypatch):
    """What the first process wrote is not there."""
    monkeypatch.setattr("cube3d.run._write_inputs", lambda *inputs: None)
    run = runs.start(tmp_path / "run", load_settings(config_file))
    with pytest.raises(UserError, match="process 0 does not see what the first one wrote there; all hosts"):
        runs.train(run)

"""Compiled ahead of time, no Triton kernel spills, each moves channels by 128 bits, and none needs more than the table
in ``docs/resources.json`` says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from tools.resources.budget import exceeded

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> None:
    command = [sys.executable, "-m", "tools.resources", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_kernels_for_ampere_keep_to_the_table():
    run("sm_80")


@pytest.mark.sweep
def test_kernels_for_every_target_keep_to_the_table():
    run()


@pytest.mark.sweep
def test_no_configuration_of_the_autotuner_spills():
    run("--every-configuration")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spills": 8}, "spills 8"),
        ({"registers": 256}, "registers 256, in the table"),
        ({"widest load bits": 32}, "its widest load is 32 bits"),
        ({"occupancy": 0.01}, "occupancy 0.01, in the table"),
        ({"tensor instructions": 0}, "no tensor-core instruction"),
    ],
)
def test_what_got_worse_is_named(change, message):
    table = json.loads((ROOT / "docs" / "resources.json").read_text())
    name = next(n for n in table if n.startswith("sm_80") and "bf16" in n and "step_kernel" in n)
    assert exceeded({name: table[name]}, table) == []
    (first, *_) = exceeded({name: {**table[name], **change}}, table)
    assert message in first
    assert "not in the table" in exceeded({"new": {**table[name]}}, table)[0]

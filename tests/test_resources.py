"""No GPU kernel spills, each moves channels by 128 bits, and none needs more than ``docs/resources.json`` says: as the
compilers wrote it, with no GPU."""

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from cube_kernels.backends import cuda
from tools.resources.budget import beyond_limits, worse

ROOT = Path(__file__).parents[1]
TABLE = json.loads((ROOT / "docs" / "resources.json").read_text())


def run(*arguments: str) -> None:
    command = [sys.executable, "-m", "tools.resources", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_table_keeps_to_the_limits_on_every_target():
    assert Counter(name.split(" | ")[0] for name in TABLE).keys() == {"sm_80", "sm_90", "sm_100", "gfx942"}
    assert beyond_limits(TABLE) == []


def test_kernels_keep_to_the_table():
    """All of those for sm_80, and those of one case on the other targets, at once."""
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(run, "sm_80"),
            pool.submit(run, "--jobs=1", "--sample", "sm_90", "sm_100", "gfx942", "traffic"),
        ]
        for done in runs:
            done.result()


def test_cuda_kernels_keep_to_the_table():
    module, reason = cuda.extension()
    if module is None:
        pytest.skip(reason)
    run("cuda")


def test_the_table_has_every_cuda_kernel():
    of_each_storage = ["pack", "collect", "collect_bank"] + 2 * ["perceive_all", "adjoint_all", "bank_gradient"]
    rollouts = 2 * ["float32, IEEE", "float32, TF32", "bfloat16", "float16"]
    in_clusters = len(rollouts) * 2  # on sm_90 and sm_100
    assert sum("CUDA" in name for name in TABLE) == 3 * (3 * len(of_each_storage) + len(rollouts)) + in_clusters


def test_what_every_triton_kernel_moves_is_counted():
    """On sm_80, where all of them run in the PTX interpreter."""
    rows = [row for name, row in TABLE.items() if name.startswith("sm_80") and "CUDA" not in name]
    assert all(row["sectors loaded a cell"] > 0 and row["FLOPs a cell"] >= 0 for row in rows)


def test_what_is_not_executed_needs_products_of_a_warpgroup():
    """Of sm_80 everything runs in the PTX interpreter; of the others all that multiplies float32 exactly."""
    skipped = [name for name, row in TABLE.items() if not row.get("executed", True)]
    assert skipped
    for name in skipped:
        assert not name.startswith("sm_80")
        assert "step" in name
        assert "fp32" not in name


@pytest.mark.sweep
def test_every_kernel_keeps_to_the_table():
    run()


@pytest.mark.sweep
def test_no_configuration_of_the_autotuner_spills():
    run("--every-configuration")


NAME = next(name for name in TABLE if name.startswith("sm_80") and "bf16" in name and "step_kernel" in name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spills": 8}, "spills 8"),
        ({"widest load bits": 32}, "its widest load is 32 bits"),
        ({"tensor instructions": 0}, "no tensor-core instruction"),
        ({"occupancy": 0}, "not the registers for one block"),
        ({"executed": False, "because of": "instruction brev.b32"}, "not executed because of instruction brev.b32"),
    ],
)
def test_what_breaks_a_limit_is_named(change, message):
    (problem,) = beyond_limits({NAME: {**TABLE[NAME], **change}})
    assert message in problem


@pytest.mark.parametrize(
    "change", [{"registers": 256}, {"occupancy": 0.01}, {"executed": False}, {"sectors loaded a cell": 1e6}]
)
def test_what_got_worse_is_named(change):
    assert worse({NAME: TABLE[NAME]}, TABLE) == []
    (problem,) = worse({NAME: {**TABLE[NAME], **change}}, TABLE)
    ((quantity, value),) = change.items()
    assert f"{quantity} {value}, in the table" in problem
    assert "not in the table" in worse({"new": TABLE[NAME]}, TABLE)[0]

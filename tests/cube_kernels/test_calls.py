"""What a call refuses, which backend it gets, and what surrounds it: threads, forks, missing builds."""

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from cube_kernels import BackendError, CubeLayer, Lattice, Rule, RuleParameters, bind, info, perceive, rollout, tables
from cube_kernels.backends import native, reference
from cube_kernels.call.dispatch import choose
from cube_kernels.tables import constant, kept_for_graphs
from tests.conformance.cases import Case, draw_inputs, run
from tests.conftest import native_isas

LATTICE = Lattice((2, 3, 4), 5)
RULE = Rule(filters=2, hidden=6, drive=2)
CASE = Case(LATTICE, RULE, "each", batch=2)


def call(steps=2, **changes):
    tensors = {name: t.detach() for name, t in draw_inputs(CASE, torch.float32).tensors().items()}
    tensors.update(changes)
    x = tensors.pop("x")
    parameters = RuleParameters(**{name: tensors.pop(name) for name in RuleParameters._fields if name in tensors})
    return rollout(x, parameters, LATTICE, RULE, steps=steps, **tensors)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.zeros(2, 3, 4, 5)}, ValueError, r"x has shape \[2, 3, 4, 5\].*\[B, 2, 3, 4, 5\]"),
        ({"x": torch.zeros(1, 2, 3, 4, 6)}, ValueError, r"\[1, 2, 3, 4, 6\].*\[B, 2, 3, 4, 5\]"),
        ({"x": torch.zeros(2, 2, 3, 4, 5, dtype=torch.int64)}, TypeError, "torch.int64.*torch.bfloat16"),
        ({"x": torch.zeros(2, 2, 3, 4, 5, dtype=torch.float8_e5m2)}, TypeError, "torch.float8_e5m2"),
        ({"seed": 3}, ValueError, "seed is 3, but the rule's fire_rate is 1"),
        ({"tolerance": -0.1}, ValueError, "tolerance is -0.1"),
        ({"trajectory_every": 0}, ValueError, "trajectory_every is 0"),
        (
            {"write_mask": torch.ones(3, 2, 3, 4, dtype=torch.bool)},
            ValueError,
            r"\[3, 2, 3, 4\]; expected \[2, 2, 3, 4\]",
        ),
        ({"write_mask": torch.ones(2, 2, 3, 4)}, TypeError, "write_mask is torch.float32.*torch.bool"),
        ({"write_mask": torch.ones(1, 2, 3, 4, dtype=torch.bool, device="meta")}, ValueError, "write_mask is on meta"),
        ({"log_time_constant": torch.zeros(5)}, ValueError, "log_time_constant was given"),
        ({"filters": torch.zeros(2, 6, 5)}, ValueError, r"filters has shape \[2, 6, 5\]; expected \[2, 7, 5\]"),
        ({"filters": None}, ValueError, r"filters is None.*\[2, 7, 5\]"),
        ({"hidden_weight": torch.zeros(6, 16)}, ValueError, r"\[6, 16\]; expected \[6, 17\]"),
        ({"head_bias": torch.zeros(5, dtype=torch.float64)}, TypeError, "torch.float64.*torch.float32"),
        ({"head_bias": torch.zeros(5, device="meta")}, ValueError, "meta.*cpu"),
        ({"drive": None}, ValueError, "no drive was given.*2 drive channels"),
        (
            {"drive": torch.zeros(3, 2, 3, 4, 2)},
            ValueError,
            r"drive has shape \[3, 2, 3, 4, 2\]; expected \[2, 2, 3, 4, 2\]",
        ),
        ({"drive": torch.zeros(2, 3, 4, 2)}, ValueError, "drive has shape"),
        ({"steps": -1}, ValueError, "steps is -1"),
        ({"steps": 1.5}, TypeError, "1.5"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every is 0"),
        ({"backend": "opencl"}, ValueError, "'opencl'.*'auto', 'native', .*'reference'"),
    ],
)
def test_a_wrong_call_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        call(**changes)


def test_gather_refuses_filters():
    lattice, rule = Lattice((2, 2, 2), 1), Rule(perception="gather", hidden=1)
    parameters = RuleParameters(
        torch.zeros(1, 7, 1), torch.zeros(1, 7), torch.zeros(1), torch.zeros(1, 1), torch.zeros(1)
    )
    with pytest.raises(ValueError, match="filters was given.*pass None"):
        rollout(torch.zeros(1, 2, 2, 2, 1), parameters, lattice, rule, steps=1)


def test_perceive_refuses_a_wrong_bank():
    with pytest.raises(ValueError, match=r"\[3, 6, 5\]; expected \[3, 7, 5\]"):
        perceive(torch.zeros(1, 2, 3, 4, 5), LATTICE, torch.zeros(3, 6, 5))


def test_auto_takes_native_where_it_can_and_reference_elsewhere():
    cpu = torch.device("cpu")
    assert choose("auto", LATTICE, RULE, torch.float32, cpu) is native
    assert choose("auto", LATTICE, RULE, torch.bfloat16, cpu) is native
    assert choose("auto", LATTICE, RULE, torch.float32, torch.device("meta")) is reference


def test_the_native_backend_refuses_what_is_on_a_gpu():
    with pytest.raises(BackendError, match=r"backend is 'native'.*the state is on cuda:1"):
        choose("native", LATTICE, RULE, torch.float32, torch.device("cuda", 1))


def test_tables_are_not_brought_to_a_gpu_while_a_graph_is_captured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    table = constant(lambda size: np.arange(size))
    assert table(3, device=torch.device("cpu")).tolist() == [0, 1, 2]
    with pytest.raises(RuntimeError, match="a CUDA graph is being captured, and a lattice's tables are not on the GPU"):
        table(3, device=torch.device("cuda", 0))


def test_tables_that_a_captured_graph_reads_are_never_dropped(monkeypatch):
    """Others make room for newer ones."""
    made, capturing = [], False
    monkeypatch.setattr(tables, "capturing", lambda: capturing)
    table = kept_for_graphs(lambda number: made.append(number) or object())
    first, second = table(1), table(2)
    capturing = True
    assert table(1) is first
    capturing = False
    for number in range(3, 3 + tables.SIZE):
        table(number)
    assert table(1) is first
    assert table(2) is not second


def test_a_forced_backend_runs_or_says_why_not(monkeypatch):
    cpu = torch.device("cpu")
    with pytest.raises(BackendError, match=r"backend is 'native'.*the state is on meta"):
        choose("native", LATTICE, RULE, torch.float32, torch.device("meta"))
    monkeypatch.setenv("CUBE_KERNELS_BACKEND", "reference")
    assert choose("auto", LATTICE, RULE, torch.float32, cpu) is reference
    assert choose("native", LATTICE, RULE, torch.float32, cpu) is native
    monkeypatch.setenv("CUBE_KERNELS_BACKEND", "native")
    with pytest.raises(BackendError, match="CUBE_KERNELS_BACKEND is 'native'"):
        choose("auto", LATTICE, RULE, torch.float32, torch.device("meta"))
    monkeypatch.setenv("CUBE_KERNELS_BACKEND", "fast")
    with pytest.raises(ValueError, match="CUBE_KERNELS_BACKEND is 'fast'; valid"):
        choose("auto", LATTICE, RULE, torch.float32, cpu)


@pytest.mark.skipif("avx512" not in native_isas(), reason="chooses among the instruction sets of an AVX-512 CPU")
def test_the_instruction_set_is_the_widest_that_pads_least():
    def chosen(channels: int, item_size: int) -> str:
        return native.plan(bind(Lattice((2, 2, 2), channels), Rule())).isa("auto", item_size)

    assert [chosen(channels, 4) for channels in (1, 8, 9, 16, 24, 32)] == [
        "avx2", "avx2", "avx512", "avx512", "avx2", "avx512"
    ]  # fmt: skip
    assert [chosen(channels, 8) for channels in (3, 4, 8, 12)] == ["avx2", "avx2", "avx512", "avx2"]


def test_an_unknown_instruction_set_is_refused(instruction_set):
    instruction_set("mmx")
    with pytest.raises(ValueError, match=r"CUBE_KERNELS_ISA is 'mmx'; valid: 'auto', 'portable'"):
        call(backend="native")


@pytest.mark.skipif(os.environ.get("CUBE_KERNELS_BUILD_NATIVE") == "0", reason="the build left the native module out")
def test_the_native_module_is_built():
    module, reason = native.extension()
    assert module is not None, reason


def test_without_the_native_module_the_rest_works_and_info_says_how_to_get_it():
    """In a process where importing the compiled module fails."""
    code = (
        "import sys; sys.modules['cube_kernels._native'] = None\n"
        "import torch, cube_kernels as k\n"
        "from cube_kernels import info\n"
        "layer = k.CubeLayer(k.Lattice((2, 2, 2), 3), k.Rule(hidden=4), steps=2)\n"
        "assert layer(torch.zeros(1, 2, 2, 2, 3)).shape == (1, 2, 2, 2, 3)\n"
        "print(info.report())\n"
        "layer.backend = 'native'\n"
        "try: layer(torch.zeros(1, 2, 2, 2, 3))\n"
        "except k.BackendError as error: print('refused:', error)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "native      no: the native module is not built" in output
    assert "apt install g++" in output
    assert "refused: cube_kernels: backend is 'native'" in output


def test_info_names_versions_and_every_backend():
    output = subprocess.run(
        [sys.executable, "-m", "cube_kernels.info", "--shape", "3", "4", "5"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for part in (
        torch.__version__,
        "native      yes",
        "reference   yes",
        "portable",
        "for 3x4x5 cells",
        "automatic     native",
    ):
        assert part in output


def test_info_names_what_is_wrong_with_a_call():
    done = subprocess.run(
        [sys.executable, "-m", "cube_kernels.info", "--shape", "0", "4", "5"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "every size of shape is 0; it must be at least 1" in done.stderr


def test_info_says_which_backend_takes_a_call_and_why_others_do_not(monkeypatch):
    report = info.report(Lattice((2, 3, 4), 5), Rule(hidden=7), torch.float64, torch.device("cpu"))
    assert "backends, for 2x3x4 cells of 5 channels, hidden=7, torch.float64 on cpu" in report
    assert "native      yes" in report
    assert "automatic     native" in report
    monkeypatch.setenv("CUBE_KERNELS_BACKEND", "triton")
    assert "automatic     none: cube_kernels: CUBE_KERNELS_BACKEND is 'triton', but it cannot run" in info.report()


def test_calls_from_several_threads_at_once_agree():
    inputs = draw_inputs(CASE, torch.float32)
    expected = run(CASE, inputs, "native")

    def again(_):
        return run(CASE, inputs, "native")

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for results in pool.map(again, range(60)):
            assert all(torch.equal(results[name], expected[name]) for name in expected)


def test_a_pool_of_our_own_gives_what_the_threads_of_openmp_give(threads):
    """Where torch computes with no OpenMP runtime, and in forked children."""
    module, _ = native.extension()
    case = Case(Lattice((8, 8, 8), 5), RULE, "shared", batch=3)
    inputs = draw_inputs(case, torch.float32)
    threads(2)
    assert native._openmp_parallel() != 0
    with_openmp = run(case, inputs, "native")
    try:
        module.use_openmp(0)
        alone = run(case, inputs, "native")
    finally:
        module.use_openmp(native._openmp_parallel())
    assert all(torch.equal(alone[name], with_openmp[name]) for name in alone)


@pytest.mark.parametrize("variable", ["OMP_DYNAMIC=true", "OMP_THREAD_LIMIT=3"])
def test_an_openmp_runtime_whose_teams_may_shrink_is_left_alone(variable):
    """Threads of a sample wait for each other at every step: one that never comes would hang the call."""
    code = "from cube_kernels.backends import native; print(native._openmp_parallel())"
    environment = dict(os.environ, **dict([variable.split("=")]))
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "0"


def _forked(queue):
    torch.set_num_threads(2)
    queue.put(call(backend="native").sum().item())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own(threads):
    """After the parent's pool has run, as in a DataLoader's worker."""
    threads(2)
    expected = call(backend="native").sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_forked, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(timeout=60)
    assert child.exitcode == 0


def test_layer_overrides_and_refusals():
    layer = CubeLayer(LATTICE, Rule(hidden=4), steps=3)
    x = torch.randn(2, 2, 3, 4, 5)
    once = layer(x, steps=1)
    assert torch.equal(layer(x), layer(layer(once, steps=1), steps=1))
    with pytest.raises(ValueError, match="'cuda9'.*'auto', 'native', .*'reference'"):
        CubeLayer(LATTICE, RULE, steps=1, backend="cuda9")
    with pytest.raises(ValueError, match="steps is -1"):
        CubeLayer(LATTICE, RULE, steps=-1)
    with pytest.raises(ValueError, match="checkpoint_every is 0"):
        CubeLayer(LATTICE, RULE, steps=1, checkpoint_every=0)

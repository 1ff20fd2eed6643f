"""The benchmarks measure what they say: the work of a row, the rows chosen, and only peers with our numbers."""

import json
from dataclasses import fields, replace

import pytest
import torch

from benchmarks import gpu, measure, overhead
from benchmarks.cases import DEFAULT, FULL, HEAT, Case, select
from benchmarks.measure import Row
from benchmarks.peers import HEAT_PEERS, OURS, PEERS, ROLLOUT_PEERS, Peer, Program, peers_of
from benchmarks.report import best_peer, summary, table
from benchmarks.runners import RefusalError, start
from benchmarks.verify import TOLERANCE, DisagreementError, check

TINY = Case((3, 4, 2), 4, "moore", 4, steps=3, batch=2)
TINY_HEAT = replace(TINY, neighborhood="von_neumann", filters=1, batch=1, heat=True)


def test_flops_equal_a_count_by_hand():
    """A cell of 4 channels under Moore and 4 filters: 4·27·4 taps, 20 inputs to 128 hidden, 128 hidden to 4."""
    a_cell_step = 2 * (432 + 2560 + 512)
    assert TINY.flops == a_cell_step * (3 * 4 * 2) * 2 * 3
    assert replace(TINY, direction="forward+backward").flops == 3 * TINY.flops
    assert TINY_HEAT.flops == 2 * (7 * 4) * (3 * 4 * 2) * 3


def test_the_default_rows_are_of_the_grid_and_hold_every_value_of_every_dimension():
    assert set(DEFAULT) <= set(FULL)
    for field in fields(Case):
        assert {getattr(case, field.name) for case in DEFAULT} == {getattr(case, field.name) for case in FULL}
    assert {(c.dtype, c.direction) for c in DEFAULT} == {(c.dtype, c.direction) for c in FULL}


def test_every_row_is_either_chosen_or_named_as_left_out():
    for everything in (False, True):
        for substring in ("", "bf16", "heat", "no such row"):
            chosen, left_out = select(everything, substring)
            assert sorted(map(str, chosen + left_out)) == sorted(map(str, FULL + HEAT))
    assert select(True, "")[1] == []


def in_process(peers):
    """Those whose distributions are there; the compilers have a test of their own, which is slow."""
    return [name for name, peer in peers.items() if not peer.needs and not name.startswith("compiled")]


@pytest.mark.parametrize("name", in_process(ROLLOUT_PEERS))
@pytest.mark.parametrize("neighborhood", [("von_neumann", 1), ("moore", 4)], ids=lambda n: n[0])
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
def test_each_torch_peer_computes_our_numbers(name, neighborhood, direction):
    case = replace(TINY, neighborhood=neighborhood[0], filters=neighborhood[1], direction=direction)
    runner = start(name, case)
    check(case, name, runner.results)
    if name != OURS:
        ours = start(OURS, case).results
        for result, right in zip(runner.results, ours, strict=True):
            torch.testing.assert_close(result, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in in_process(ROLLOUT_PEERS) if name != OURS])
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
def test_each_torch_peer_computes_the_same_in_bfloat16(name, direction):
    case = replace(TINY, dtype="bf16", direction=direction)
    results = start(name, case).results
    assert all(result.dtype == torch.bfloat16 for result in results)
    check(case, name, results)


@pytest.mark.parametrize("name", HEAT_PEERS)
def test_each_stencil_peer_computes_our_numbers(name):
    try:
        runner = start(name, TINY_HEAT)
    except RefusalError as refusal:
        pytest.skip(str(refusal))
    check(TINY_HEAT, name, runner.results)
    runner.close()


def test_cax_computes_our_numbers():
    case = replace(TINY, direction="forward+backward")
    try:
        runner = start("CAX", case)
    except RefusalError as refusal:
        pytest.skip(str(refusal))
    check(case, "CAX", runner.results)
    assert runner.seconds(2) > 0
    runner.close()


@pytest.mark.sweep
@pytest.mark.parametrize("name", [name for name in ROLLOUT_PEERS if name.startswith("compiled")])
def test_each_compiled_peer_computes_our_numbers(name):
    case = replace(TINY, direction="forward+backward")
    check(case, name, start(name, case).results)


@pytest.mark.parametrize(
    "wrong", [lambda y: y * (1 + 3 * TOLERANCE["fp32"]), lambda y: y * float("nan"), lambda y: y[:1]]
)
def test_wrong_numbers_are_named(wrong):
    right = start(OURS, TINY).results
    with pytest.raises(DisagreementError, match="somebody: y "):
        check(TINY, "somebody", [wrong(y) for y in right])


def doubled(case: Case) -> Program:
    """A fast peer with wrong numbers."""
    return Program(lambda: case.problem().x * 2, lambda x: [x])


def refusing(case: Case) -> Program:
    raise RuntimeError("no such instruction\nand more")


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch):
    """Puts peers into the table; rows are measured in few samples."""
    monkeypatch.setattr(measure, "SAMPLE_SECONDS", 1e-3)
    monkeypatch.setattr(measure, "SAMPLED_SECONDS", 1e-3)

    def plant(**peers: Peer) -> None:
        table = {OURS: PEERS[OURS], **peers}
        monkeypatch.setattr(measure, "peers_of", lambda case: table)
        monkeypatch.setattr("benchmarks.report.peers_of", lambda case: table)
        for name, peer in table.items():
            monkeypatch.setitem(PEERS, name, peer)

    return plant


def test_a_peer_with_other_numbers_gets_no_time(planted):
    planted(wrong=Peer(doubled), refuses=Peer(refusing), absent=Peer(doubled, needs=("no-such-distribution",)))
    row = measure.measure(TINY, memory=False)
    assert list(row.milliseconds) == [OURS]
    assert "other numbers" in row.refused["wrong"]
    assert row.refused["refuses"] == "refused: no such instruction"
    assert row.refused["absent"] == "not installed"
    text = table(row, {"fp32 matmul GFLOP/s": 1.0})
    assert all(reason in text for reason in row.refused.values())


def test_a_row_in_which_ours_are_wrong_is_refused(planted):
    planted(**{OURS: Peer(doubled, ours=True)})
    with pytest.raises(DisagreementError, match=OURS):
        measure.measure(TINY, memory=False)


def test_the_summary_names_what_was_lost_and_what_has_no_comparison():
    lost = Row(DEFAULT[0], {OURS: [2.0, 2.0, 9.0], "eager shifts": [1.0], "CAX": [5.0]})
    alone = Row(DEFAULT[1], {OURS: [2.0]}, {"CAX": "not installed"})
    assert best_peer(lost) == "eager shifts"
    assert best_peer(alone) is None
    text = summary([lost, alone])
    assert f"rows lost: 1\n  0.50 × ours by eager shifts: {DEFAULT[0]}" in text
    assert f"rows without a comparison: 1\n  {DEFAULT[1]}" in text
    assert "geometric mean 0.50" in text


def test_heat_is_not_won_against_ourselves():
    row = Row(TINY_HEAT, {OURS: [2.0], "cube-kernels, perceive": [1.0], "eager Conv3d": [3.0]})
    assert best_peer(row) == "eager Conv3d"
    assert peers_of(TINY_HEAT)["cube-kernels, perceive"].ours


def test_every_row_of_the_overhead_table_runs():
    for call in overhead.measured().values():
        call()


def test_the_gpu_command_measures_what_agrees_and_says_what_was_left_out(tmp_path, monkeypatch):
    """On the CPU, where it takes the native backend: what it does with a device is the same."""
    monkeypatch.setattr(gpu, "FORMS", {"shifts": gpu.FORMS["shifts"]})
    monkeypatch.setattr(gpu, "ROUNDS", 2)
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)  # the compiler takes minutes and is not at issue
    both = gpu.Row(replace(TINY, direction="forward+backward"), "fp32")
    gpu.main(["--out", str(tmp_path), "--device", "cpu"], lambda: [gpu.Row(TINY, "fp32"), both])
    found = json.loads((tmp_path / "results.json").read_text())
    for row in found["rows"]:
        assert {"native", "eager shifts", "compiled shifts"} <= row["milliseconds"].keys(), row["refused"]
    assert found["not run"] == []
    assert "x ours" in (tmp_path / "report.txt").read_text()

    monkeypatch.setattr(gpu, "TOTAL_SECONDS", -1)
    gpu.main(["--out", str(tmp_path), "--device", "cpu"], lambda: [gpu.Row(TINY, "fp32")])
    assert json.loads((tmp_path / "results.json").read_text())["not run"] == [str(gpu.Row(TINY, "fp32"))]


def test_the_gpu_command_refuses_other_numbers(monkeypatch):
    row = gpu.Row(TINY, "fp32")
    monkeypatch.setattr(gpu, "programs", lambda case, device: {"wrong": lambda: lambda: [case.problem().x]})
    gpu.measure(row, gpu.Device("cpu"))
    assert row.milliseconds == {}
    assert "other numbers" in row.refused["wrong"]


def test_the_gpu_command_says_that_there_is_no_gpu(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path)])
    assert "no GPU here" in capsys.readouterr().err

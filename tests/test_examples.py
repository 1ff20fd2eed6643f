"""The examples run, small."""

import runpy
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_growing_3d_automaton_learns_its_shape(monkeypatch, capsys):
    options = ["--size", "6", "--steps", "8", "--iterations", "20", "--hidden", "32"]
    monkeypatch.setattr(sys, "argv", ["growing_3d.py", *options])
    runpy.run_path(str(EXAMPLES / "growing_3d.py"), run_name="__main__")
    printed = capsys.readouterr().out
    losses = [
        float(word) for line in printed.splitlines() if "loss" in line for word in line.split() if word[:2] == "0."
    ]
    assert len(losses) >= 2, printed
    assert losses[-1] < losses[0], printed

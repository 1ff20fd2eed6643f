"""The Python of the README and of the page on automata runs as it stands."""

import re
from pathlib import Path

import pytest


@pytest.mark.parametrize("page", ["README.md", "docs/automata.md"])
def test_its_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / page).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    names: dict = {}
    for block in blocks:  # each goes on where the one before ended
        exec(block, names)

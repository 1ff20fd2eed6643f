"""The sentence-transformers example: it trains, moves nothing but the cube, and its model loads where it is not."""

import re
import runpy
import sys
from pathlib import Path

import pytest

sentence_transformers = pytest.importorskip("sentence_transformers", reason="the example is a module of it")
pytest.importorskip("datasets", reason="its trainer reads them")

EXAMPLE = Path(__file__).parents[2] / "examples" / "sentence_transformers_router.py"
ADJECTIVES, NOUNS = ["red", "tall", "old", "wide", "soft", "round"], ["tree", "river", "stone", "cloud", "wheel"]
TEXTS = ["what is a tree?", "the name of a river"]


def test_a_cube_is_trained_in_a_router_saved_and_loaded(tiny_teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    pairs = [(f"what is a {a} {b}?", f"the {b} of a {a}.") for a in ADJECTIVES for b in NOUNS]
    (tmp_path / "pairs.txt").write_text("".join(f"Q: {question}\nA: {answer}\n" for question, answer in pairs))
    arguments = [
        "--pairs",
        str(tmp_path / "pairs.txt"),
        "--model",
        str(tiny_teacher),
        "--epochs",
        "8",
        "--out",
        str(tmp_path),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
        patch.syspath_prepend(str(EXAMPLE.parent))  # where Python itself looks first when it runs a script
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    first, last = map(float, re.findall(r"loss ([\d.]+) in the first epoch, ([\d.]+) in the last", printed)[0])
    assert last < first
    assert "loaded again it says the same" in printed

    # Elsewhere its module is not on the path: the folder has it.
    trained = sys.modules.pop("sentence_transformers_cube")
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    cube = model[0].sub_modules["query"][-1]
    assert type(cube).__name__ == "Cube"
    assert type(cube) is not trained.Cube
    assert cube.mapping.readout.any(), "it starts at zero"
    encoder = sentence_transformers.SentenceTransformer(str(tiny_teacher), device="cpu")
    assert (model.encode_document(TEXTS) == encoder.encode(TEXTS)).all()
    assert (model.encode_query(TEXTS) != encoder.encode(TEXTS)).any()

"""``cube3d embed``: every line becomes the run's vector of it, in little memory, or the line is named."""

import io
import json
import sys

import numpy as np
import pytest
import torch.nn.functional as F

from cube3d import run as runs
from cube3d.answering import embed as embedding
from cube3d.cli import main
from cube3d.hints import command
from cube3d.reader.model import ReaderModel

TEXTS = ["what is a river?", "stone", "tell me about the wheel?", "a b c", "music", "light", "water?"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several chunks, the last not full."""
    monkeypatch.setattr(embedding, "CHUNK", 3)


@pytest.fixture
def no_teacher(monkeypatch):
    def fail(*arguments):
        raise AssertionError("a teacher is opened")

    monkeypatch.setattr("cube3d.teachers.ensemble.open_teacher", fail)
    monkeypatch.setattr("cube3d.teachers.transformer._load", fail)


@pytest.fixture
def texts_file(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{text}\n" for text in TEXTS))
    return path


def embed(*arguments):
    return main(["embed", *map(str, arguments)])


def given(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.usefixtures("no_teacher")
def test_a_reader_embeds_without_a_teacher(reader_run, texts_file, tmp_path):
    assert embed(reader_run, texts_file, "--out", tmp_path / "vectors.npy") == 0
    vectors = np.load(tmp_path / "vectors.npy")
    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), 16), np.float32)
    assert np.allclose(vectors, runs.load(reader_run).ask(TEXTS), atol=1e-6)


def test_the_check_for_teachers_finds_one(trained_run, texts_file, no_teacher):
    with pytest.raises(AssertionError, match="a teacher is opened"):
        embed(trained_run, texts_file)


def test_a_mapping_embeds_through_teacher_and_cube(trained_run, texts_file, tmp_path):
    assert embed(trained_run, texts_file, "--out", tmp_path / "vectors.npy") == 0
    run = runs.load(trained_run)
    expected = F.normalize(run.model.map(run.ensemble.questions(TEXTS)), dim=-1)
    assert np.allclose(np.load(tmp_path / "vectors.npy"), expected, atol=1e-6)


@pytest.mark.parametrize("named", [["-"], []])
def test_standard_input_becomes_json_lines_on_standard_output(named, reader_run, capsysbinary, monkeypatch):
    given(monkeypatch, "".join(f"{text}\n" for text in TEXTS).encode())
    assert embed(reader_run, *named) == 0
    records = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [record["text"] for record in records] == TEXTS
    assert np.allclose([record["vector"] for record in records], runs.load(reader_run).ask(TEXTS), atol=1e-6)


def interrupted(embedder, lines):
    raise KeyboardInterrupt


def test_what_a_pipe_gave_or_took_begins_again_and_a_file_goes_on(
    reader_run, texts_file, tmp_path, monkeypatch, capsys
):
    """The command line says which of both it is, and it is so."""
    out, content = tmp_path / "vectors.npy", "".join(f"{text}\n" for text in TEXTS).encode()
    going_on = command("embed", reader_run, texts_file, "--out", out)
    for given_arguments, ends in [
        (["--out", out], "interrupted; the same command begins again"),
        (["-", "--out", out], "interrupted; the same command begins again"),
        ([texts_file], "interrupted; the same command begins again"),
        ([texts_file, "--out", out], f"interrupted; `{going_on}` goes on"),
    ]:
        given(monkeypatch, content)
        with monkeypatch.context() as patch:
            patch.setattr(embedding.Embedder, "__call__", interrupted)
            assert embed(reader_run, *given_arguments) == 130
        assert capsys.readouterr().err.splitlines()[-1] == f"cube3d: {ends}"
        given(monkeypatch, content)
        assert embed(reader_run, *given_arguments) == 0
        if "--out" in given_arguments:
            assert np.allclose(np.load(out), runs.load(reader_run).ask(TEXTS), atol=1e-6)
            out.unlink()


def test_json_lines_are_read_and_written(reader_run, tmp_path):
    source, out = tmp_path / "texts.jsonl", tmp_path / "vectors.jsonl"
    source.write_text("".join(json.dumps({"text": text, "id": 3}) + "\n" for text in TEXTS))
    assert embed(reader_run, source, "--out", out) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["text"] for record in records] == TEXTS


def test_a_last_line_without_an_end_and_a_byte_order_mark_are_taken(reader_run, tmp_path):
    source, out = tmp_path / "texts.txt", tmp_path / "vectors.npy"
    source.write_bytes(b"\xef\xbb\xbfriver\r\nstone")
    assert embed(reader_run, source, "--out", out) == 0
    assert np.allclose(np.load(out), runs.load(reader_run).ask(["river", "stone"]), atol=1e-6)


def test_no_more_than_a_chunk_is_held(reader_run, texts_file, tmp_path, monkeypatch):
    """Lines are read when they are embedded, and never more of them than a chunk at once."""
    events = []
    vectors, lines = ReaderModel.embed_tokens, embedding._lines

    def watched_vectors(model, tokens):
        events.append(len(tokens))
        return vectors(model, tokens)

    def watched_lines(*arguments, **options):
        for line in lines(*arguments, **options):
            events.append("line")
            yield line

    monkeypatch.setattr(ReaderModel, "embed_tokens", watched_vectors)
    monkeypatch.setattr(embedding, "_lines", watched_lines)
    assert embed(reader_run, texts_file, "--out", tmp_path / "vectors.npy") == 0
    assert events == ["line"] * 3 + [3] + ["line"] * 3 + [3] + ["line"] + [1]


def test_texts_that_are_cut_are_counted(reader_run, tmp_path, capsys):
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(["x" * 33, "x" * 32, "y" * 99, "river"]))
    assert embed(reader_run, source, "--out", tmp_path / "vectors.npy") == 0
    assert "texts of more than 32 tokens (reader.max_length), cut off there: 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"a\nb\nc\nd\n \nf\n", "t.txt:5: the text is empty"),
        ("t.txt", b"a\n\x80\n", "t.txt:2: the text is not UTF-8 (byte 0)"),
        ("t.txt", "a\nb\nc\nd\n§\n".encode(), "t.txt:5: the reader knows no token of '§'"),
        ("t.txt", "§\nb\n§ §\n".encode(), "t.txt:3: the reader knows no token of '§ §'"),
        ("t.txt", b"", "t.txt: holds no text"),
        ("t.jsonl", b'{"text": "a"}\n{"text": "b", "text": "c"}\n', "t.jsonl:2: the key 'text' is there twice"),
        ("t.jsonl", b'{"text": "a"}\n{"texts": "b"}\n', "t.jsonl:2: expected an object with a 'text', found"),
        ("t.jsonl", b'{"text": "a"}\nb\n', "t.jsonl:2: not JSON (Expecting value"),
        ("t.jsonl", b'{"text": "a"}\n{"text": " "}\n', "t.jsonl:2: the text is empty"),
        ("t.jsonl", b'{"text": 7}\n', "t.jsonl:1: expected an object with a 'text', found"),
        ("t.jsonl", b'{"text": "\\ud800"}\n', "t.jsonl:1: the text holds half of a surrogate pair"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(name, content, message, reader_run, tmp_path, capsys):
    source, out = tmp_path / name, tmp_path / "vectors.npy"
    source.write_bytes(content)
    out.write_bytes(b"what was there before")
    assert embed(reader_run, source, "--out", out) == 2
    assert message in capsys.readouterr().err
    assert out.read_bytes() == b"what was there before"
    assert {path.name for path in tmp_path.iterdir()} == {name, "vectors.npy"}


def test_a_missing_file_and_an_unknown_kind_are_refused(reader_run, texts_file, tmp_path, capsys):
    assert embed(reader_run, tmp_path / "none.txt") == 2
    assert "none.txt: cannot be read" in capsys.readouterr().err
    assert embed(reader_run, texts_file, "--out", tmp_path / "vectors.csv") == 2
    assert "vectors are written as .npy or .jsonl" in capsys.readouterr().err

"""Answering: one question, a prompt, a file; banks, search, and text that is empty, huge, binary or right to left."""

import io
import json
import sys

import pytest
import torch
import torch.nn.functional as F

from cube3d import run as runs
from cube3d.answering import answer
from cube3d.answering.answer import FaissSearch, MatrixSearch, Reader
from cube3d.cli import main
from cube3d.errors import UserError

SUBJECTS = ["tree", "river", "stone", "cloud", "paper", "glass", "wheel", "bread"]
RIGHT_TO_LEFT = "מה זה נהר? ما هو النهر؟"


def write_pairs(path, subjects, answers="the {} has its {} name."):
    records = [{"question": f"what is a {s}?", "answer": answers.replace("{}", s)} for s in subjects]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def run_folder(make_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("answering")
    return make_run(folder / "run", write_pairs(folder / "pairs.jsonl", SUBJECTS)).folder


@pytest.fixture(scope="module")
def answerer(run_folder):
    return Reader(runs.load(run_folder))


def ask(capsys, *arguments):
    """Exit status, standard output and standard error."""
    status = main(["ask", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def give(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


# The search


def test_answers_are_the_nearest_to_the_prediction_best_first(answerer, run_folder):
    run = runs.load(run_folder)
    question = "what is a river?"
    texts = [pair.answer for pair in run.pairs]
    prediction = run.ask([question])
    cosines = F.cosine_similarity(prediction, run.ensemble.answers(texts), dim=-1)
    expected = sorted(zip(cosines.tolist(), texts, strict=True), reverse=True)[:3]
    found = answerer.answer([question], 3)[0]
    assert [a.text for a in found] == [text for _, text in expected]
    assert [a.score for a in found] == pytest.approx([score for score, _ in expected], abs=1e-5)
    assert found[0].source == next(p.source for p in run.pairs if p.answer == found[0].text)


def test_a_batch_is_answered_as_each_question_alone(answerer):
    questions = [f"what is a {subject}?" for subject in SUBJECTS] * 40  # more than one block of the product
    together = answerer.answer(questions, 2)
    assert len(together) == len(questions)
    for i in (0, 5, 300):
        alone = answerer.answer([questions[i]], 2)[0]
        assert [a.text for a in alone] == [a.text for a in together[i]]
    assert len({answers[0].text for answers in together}) > 1, "one answer to all would prove nothing"


def test_faiss_finds_what_the_product_finds(monkeypatch, run_folder, capsys):
    pytest.importorskip("faiss", reason="faiss searches banks of more than 100,000")
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(1000, 16, generator=generator), dim=-1)
    queries = F.normalize(torch.randn(7, 16, generator=generator), dim=-1)
    (scores, rows), (expected_scores, expected_rows) = (
        search(vectors).best(queries, 10) for search in (FaissSearch, MatrixSearch)
    )
    assert torch.equal(rows, expected_rows)
    assert torch.allclose(scores, expected_scores, atol=1e-5)

    _, by_product, said = ask(capsys, run_folder, "what is a river?")
    assert "exact search by matrix product" in said
    monkeypatch.setattr(answer, "MATRIX_LIMIT", len(SUBJECTS) - 1)
    _, by_faiss, said = ask(capsys, run_folder, "what is a river?")
    assert f"{len(SUBJECTS)} answers to choose from; exact search by faiss" in said
    assert by_faiss == by_product != ""


def test_a_large_bank_without_faiss_is_one_clear_error(monkeypatch, run_folder, capsys):
    monkeypatch.setattr(answer, "MATRIX_LIMIT", 3)
    monkeypatch.setitem(sys.modules, "faiss", None)
    status, out, err = ask(capsys, run_folder, "what is a river?")
    assert (status, out) == (2, "")
    assert "8 answers: more than 3 are searched by faiss, which is not installed; `pip install" in err


# Banks


def test_another_bank_gives_its_answers(run_folder, tmp_path, capsys):
    bank = write_pairs(tmp_path / "bank.jsonl", ["metal", "horse", "metal"], answers="of {} alone.")
    status, out, err = ask(capsys, run_folder, "what is a horse?", "--bank", bank)
    assert status == 0
    assert sorted(line.split("  ")[1] for line in out.splitlines()) == ["of horse alone.", "of metal alone."]
    assert "2 answers to choose from" in err, "equal answers count once"


def test_a_bank_that_cannot_be_read_is_refused(run_folder, tmp_path, capsys):
    status, out, err = ask(capsys, run_folder, "why?", "--bank", tmp_path / "none.jsonl")
    assert (status, out) == (2, "")
    assert "none.jsonl: cannot be read" in err


# The three ways to ask


def test_a_question_prints_its_answers_and_nothing_else(run_folder, capsys):
    status, out, _ = ask(capsys, run_folder, "what is a stone?", "--count", 2)
    assert status == 0
    assert [line.split("  ")[1][:4] for line in out.splitlines()] == ["the ", "the "]


def test_the_prompt_answers_until_the_input_ends_and_loads_once(run_folder, capsys, monkeypatch):
    loads = []
    monkeypatch.setattr(runs, "load_model", lambda *a, load=runs.load_model: loads.append(a) or load(*a))
    give(monkeypatch, b"what is a stone?\n\n\xff\xfe\nwhat is a cloud?")
    status, out, err = ask(capsys, run_folder, "--count", 1)
    assert status == 0
    singles = [ask(capsys, run_folder, f"what is a {s}?", "--count", 1)[1] for s in ("stone", "cloud")]
    assert out == "".join(singles)
    assert "the question is empty" in err
    assert "not UTF-8 text (character 0)" in err
    assert len(loads) == 3, "one for the prompt, and one for each question alone"


def test_an_interrupted_prompt_does_not_speak_of_training(run_folder, capsys, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Reader, "answer", interrupt)
    give(monkeypatch, b"why?\n")
    status, _, err = ask(capsys, run_folder)
    assert status == 130
    assert err.endswith("cube3d: interrupted\n")


def test_a_file_is_answered_question_by_question(run_folder, tmp_path, capsys):
    path = tmp_path / "questions.txt"
    path.write_bytes("\ufeffwhat is a stone?\r\n what is a cloud? \n".encode())
    status, out, _ = ask(capsys, run_folder, "--file", path, "--count", 2)
    assert status == 0
    lines = out.splitlines()
    assert (lines[0], lines[3]) == ("what is a stone?", "what is a cloud?")
    assert len(lines) == 6


def test_json_is_an_object_a_line_that_says_where_answers_stand(run_folder, tmp_path, capsys):
    path = tmp_path / "questions.txt"
    path.write_text(f"what is a stone?\n{RIGHT_TO_LEFT}\n")
    _, out, _ = ask(capsys, run_folder, "--file", path, "--json", "--count", 2)
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["question"] for record in records] == ["what is a stone?", RIGHT_TO_LEFT]
    for record in records:
        scores = [a["score"] for a in record["answers"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 2
        assert all(a["source"].startswith("pairs.jsonl:") and a["text"].startswith("the ") for a in record["answers"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"why?\n\nhow?\n", "questions.txt:2: the question is empty"),
        (b"why?\n\x80\x81 binary \x00\n", "questions.txt:2: the question is not UTF-8 text (character 0)"),
        (b"", "holds no questions"),
    ],
)
def test_a_bad_file_of_questions_is_refused_before_anything_is_answered(content, message, run_folder, tmp_path, capsys):
    path = tmp_path / "questions.txt"
    path.write_bytes(content)
    status, out, err = ask(capsys, run_folder, "--file", path)
    assert (status, out) == (2, "")
    assert message in err


def test_a_question_and_a_file_together_are_refused(run_folder, tmp_path, capsys):
    status, _, err = ask(capsys, run_folder, "why?", "--file", tmp_path / "questions.txt")
    assert status == 2
    assert "a question or --file, not both" in err


# Text


@pytest.mark.parametrize("question", [RIGHT_TO_LEFT, "\u202eriver a is what\u202c", "word " * 100_000, "\x00\x01\x7f"])
def test_odd_text_is_answered(question, answerer):
    found = answerer.answer([question], 3)[0]
    assert len(found) == 3
    assert all(-1.001 <= a.score <= 1.001 for a in found)


@pytest.mark.parametrize(
    ("question", "message"),
    [("", "empty"), (" \n\t ", "empty"), ("half \udcff a byte", r"not UTF-8 text \(character 5\)")],
)
def test_text_that_is_none_is_refused(question, message, answerer):
    with pytest.raises(UserError, match=message):
        answerer.answer(["why?", question], 3)

"""A teacher of word vectors: the weighted mean, its weights from training texts alone, and a run with one."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cube3d.config import TeacherSettings
from cube3d.errors import UserError
from cube3d.teachers import embed, open_teacher
from cube3d.teachers.words import WordTeacher
from cube3d.words import write_word2vec

VOCABULARY = ["the", "river", "stone", "Paris", ".", "?"]
MATRIX = np.random.default_rng(0).standard_normal((len(VOCABULARY), 8)).astype(np.float32)
ROW = dict(zip(VOCABULARY, torch.from_numpy(MATRIX), strict=True))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "words.vec"
    write_word2vec(path, VOCABULARY, MATRIX)
    return path


def test_without_training_texts_a_text_is_the_mean_of_its_words(path):
    found = WordTeacher(path).embed(["The river, the STONE.", "Paris?"])
    assert torch.allclose(found[0], (2 * ROW["the"] + ROW["river"] + ROW["stone"] + ROW["."]) / 5, atol=1e-6)
    assert torch.allclose(found[1], (ROW["Paris"] + ROW["?"]) / 2, atol=1e-6)
    assert found.dtype == torch.float32


def test_rare_words_of_the_training_texts_weigh_more(path):
    """Three texts; every one holds "the" (twice in one counts once), one holds "river", none holds "stone"."""
    teacher = WordTeacher(path).fitted(["the the river", "the", "The ?"])
    weight = {"the": 1 + math.log(4 / 4), "river": 1 + math.log(4 / 2), "stone": 1 + math.log(4 / 1)}
    expected = sum(weight[word] * ROW[word] for word in weight) / sum(weight.values())
    assert torch.allclose(teacher.embed(["the river stone"])[0], expected, atol=1e-6)


def test_what_was_learned_is_part_of_the_key_and_comes_back(path):
    plain, fitted = WordTeacher(path), WordTeacher(path).fitted(["the river", "the stone"])
    again = WordTeacher(path, **fitted.learned)
    assert again.key == fitted.key != plain.key
    assert torch.equal(again.embed(["the river"]), fitted.embed(["the river"]))
    write_word2vec(path, VOCABULARY, MATRIX + 1)
    assert WordTeacher(path).key != plain.key


def test_a_fasttext_model_gives_unseen_words_a_vector():
    gensim = pytest.importorskip("gensim", reason="its wheel carries a model")
    model = Path(gensim.__file__).parent / "test" / "test_data" / "crime-and-punishment.bin"
    theirs = gensim.models.fasttext.load_facebook_vectors(str(model))
    found = WordTeacher(model).embed(["незнакомый студент"])[0]
    expected = (theirs["незнакомый"] + theirs["студент"]) / 2
    assert torch.allclose(found, torch.from_numpy(expected), atol=1e-6)


def test_a_text_without_a_known_word_is_named(path):
    with pytest.raises(UserError, match=r"no word of the text 'quark \+ gluon' has a vector"):
        WordTeacher(path).embed(["the river", "quark + gluon"])


def test_texts_without_a_known_word_are_named_and_the_others_are_kept(path, monkeypatch):
    texts = ["the river", "quark", "gluon + quark", "the stone"]
    with pytest.raises(UserError, match=r"knows no word of 'quark', 'gluon \+ quark'; leave them out") as caught:
        embed(WordTeacher(path), texts)
    assert "What it gave for the others is kept" in str(caught.value)
    monkeypatch.setattr(WordTeacher, "embed", None)  # what is found from here on was kept
    assert embed(WordTeacher(path), ["the stone", "the river"]).shape == (2, 8)


def test_a_message_names_no_more_than_ten_texts(path):
    with pytest.raises(UserError, match=r"'quark 9' and 2 more; leave them out"):
        embed(WordTeacher(path), [f"quark {i}" for i in range(12)])


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        _ = WordTeacher(tmp_path / "none.vec").key


def test_a_run_learns_the_weights_from_its_training_texts_and_keeps_them(make_run, tmp_path):
    """All texts hold "name"; each subject is in one answer group, so that what counts words tells the parts apart."""
    from cube3d import run as runs

    subjects = ["tree", "river", "stone", "cloud", "paper", "glass", "wheel", "bread"]
    words = [*subjects, "what", "is", "the", "name", "of", "?", "."]
    write_word2vec(
        tmp_path / "words.vec", words, np.random.default_rng(1).standard_normal((len(words), 16)).astype(np.float32)
    )
    (tmp_path / "pairs.txt").write_text("".join(f"Q: What is {s}?\nA: The name of {s}.\n" for s in subjects))
    pairs, model = tmp_path / "pairs.txt", str(tmp_path / "words.vec")
    folder = make_run(tmp_path / "run", pairs, model=model, max_length=TeacherSettings().max_length).folder
    run = runs.load(folder)
    (member,) = run.ensemble.members
    assert member.whitened
    training = {run.pairs[i].answer.split()[-1].strip(".") for i in run.split.train}
    assert 0 < len(training) < len(subjects)
    holding = member.teacher.learned["holding"]
    assert {subject for subject in subjects if subject in holding} == training
    assert holding["is"] == holding["name"] == len(training)
    assert member.teacher.learned["texts"] == 2 * len(training)
    assert run.ensemble.questions(["What is river?"]).shape == (1, 16)


def test_settings_that_only_a_transformer_has_are_refused(path):
    with pytest.raises(UserError, match="a file of word vectors has no pooling, dtype; only model and whiten"):
        open_teacher(TeacherSettings(model=str(path), pooling="cls", dtype="float16"))

"""The texts of a distillation on disk: what is written, what is left out, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers

from cube3d.errors import UserError
from cube3d.reader import corpus as corpora
from cube3d.reader.corpus import Corpus, write_corpus
from cube3d.reader.tokenizer import TextTokenizer
from tests.cube3d.reader.made import LetterTeacher, ensemble_of

WORDS = {"[UNK]": 0, "ab": 1, "cab": 2, "bad": 5}
"""With a gap, as some tokenizers have."""


@pytest.fixture
def tokenizer():
    made = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextTokenizer(made, max_length=3)


def written(folder, texts, tokenizer, teacher=None):
    cut = write_corpus(folder, texts, tokenizer, ensemble_of(teacher or LetterTeacher()))
    return Corpus(folder), cut


@pytest.mark.parametrize("chunk", [2, 512])
def test_tokens_and_targets_of_each_text(tmp_path, tokenizer, monkeypatch, chunk):
    """Also where there are more texts than are taken at a time."""
    monkeypatch.setattr(corpora, "CHUNK", chunk)
    teacher = LetterTeacher()
    texts = ["ab cab", "bad", "cab dad ab", "dad bad", "ab ab"]
    corpus, cut = written(tmp_path / "corpus", texts, tokenizer, teacher)
    assert [corpus[i]["input_ids"].tolist() for i in range(len(corpus))] == [[1, 2], [5], [2, 0, 1], [0, 5], [1, 1]]
    targets = torch.stack([corpus[i]["target"] for i in range(len(corpus))])
    assert torch.allclose(targets, F.normalize(teacher.counted(texts), dim=-1), atol=1e-3)
    assert corpus[0]["input_ids"].dtype == torch.int64
    assert corpus[0]["target"].dtype == torch.float32
    assert cut == 0


def test_texts_are_cut_and_the_cut_ones_counted(tmp_path, tokenizer):
    corpus, cut = written(tmp_path / "corpus", ["ab ab ab", "ab ab ab ab", "bad " * 50], tokenizer)
    assert [len(corpus[i]["input_ids"]) for i in range(3)] == [3, 3, 3]
    assert cut == 2


@pytest.mark.parametrize("chunk", [1, 2, 512])
def test_texts_that_nobody_can_read_are_left_out(tmp_path, tokenizer, monkeypatch, chunk):
    """No token, no known token, none before the cut, and a letter that the teacher has no vector for."""
    monkeypatch.setattr(corpora, "CHUNK", chunk)
    texts = ["ab", " ", "dad", "dad dad dad ab", "ab x", "bad", "", "cab"]
    corpus, _ = written(tmp_path / "corpus", texts, tokenizer)
    assert [corpus[i]["input_ids"].tolist() for i in range(len(corpus))] == [[1], [5], [2]]


@pytest.mark.parametrize(
    ("texts", "left"), [([], 0), (["ab"], 1), (["dad", "had"], 0), (["ab", "x"], 1), (["ab", "dad"], 1)]
)
def test_fewer_than_two_texts_are_an_error_and_leave_nothing(tmp_path, tokenizer, texts, left):
    with pytest.raises(UserError, match=f"{left} of {len(texts)} texts can be read by the tokenizer and the teachers"):
        written(tmp_path / "corpus", texts, tokenizer)
    assert not list(tmp_path.iterdir())


def test_a_failing_teacher_leaves_nothing(tmp_path, tokenizer):
    class Failing(LetterTeacher):
        def embed(self, texts):
            raise UserError("no power")

    with pytest.raises(UserError, match="no power"):
        written(tmp_path / "corpus", ["ab", "bad"], tokenizer, Failing("abcdefgh ,"))
    assert not list(tmp_path.iterdir())


def test_counts_of_tokens(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(corpora, "COUNTED", 2)
    corpus, _ = written(tmp_path / "corpus", ["ab ab dad", "bad", "cab ab"], tokenizer)
    assert corpus.counts(len(tokenizer)).tolist() == [1, 3, 1, 0, 0, 1]
    assert corpus.counts(len(tokenizer)).dtype == torch.int64


def test_a_tokenizer_that_knows_everything_leaves_no_text_out(tmp_path):
    """Of byte-level tokenizers nothing is unknown; number 0 is a token like others."""
    made = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    corpus, _ = written(tmp_path / "corpus", ["a", "ba"], TextTokenizer(made, 8))
    assert [corpus[i]["input_ids"].tolist() for i in range(2)] == [[0], [1, 0]]


@pytest.mark.parametrize("name", ["tokens", "ends", "targets"])
@pytest.mark.parametrize("how", ["missing", "half", "empty", "other"])
def test_a_damaged_corpus_is_refused(tmp_path, tokenizer, name, how):
    folder = tmp_path / "corpus"
    written(folder, ["ab", "bad", "cab ab"], tokenizer)
    path = folder / f"{name}.npy"
    if how == "missing":
        path.unlink()
    elif how == "other":
        np.save(path, np.load(path)[:-1])
    else:
        path.write_bytes(path.read_bytes()[:-3] if how == "half" else b"")
    with pytest.raises(UserError, match=str(folder)):
        Corpus(folder)

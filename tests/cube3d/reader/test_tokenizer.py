"""Tokenizers: a teacher's or one of one's own, and what each token stands for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from cube3d.config import TeacherSettings
from cube3d.errors import UserError
from cube3d.reader.tokenizer import FILE, TextTokenizer, load_tokenizer, teacher_tokenizer, trained_tokenizer
from cube3d.teachers import open_teacher
from tests.cube3d.reader.made import LetterTeacher

ROOT = Path(__file__).parents[3]


def word_piece():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##do", "##ing", "do", "#", "##"]
    made = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return made


def byte_level():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: i for i, token in enumerate([*alphabet, "Ġa", "##", "Ã©", "ĊĊ"])}
    made = Tokenizer(models.BPE(tokens, [("Ġ", "a"), ("#", "#"), ("Ã", "©"), ("Ċ", "Ċ")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|end|>"])
    return made


def unigram():
    entries = [("▁a", -1.0), ("<unk>", 0.0), ("b", -2.0), ("▁", -3.0), ("a", -3.0)]
    made = Tokenizer(models.Unigram(entries, unk_id=1))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made


def with_gaps():
    return Tokenizer(models.WordLevel({"a": 0, "b": 7, "?": 3}, unk_token="?"))


def test_word_piece():
    tokenizer = TextTokenizer(word_piece(), 4)
    assert tokenizer.encode(["Undoing", "do q", "", "do do do do do"]) == [[4, 5, 6], [7, 1], [], [7] * 4]
    assert tokenizer.tokens(["do do do do do"]) == [[7] * 5]
    assert tokenizer.texts() == ["", "", "", "", "un", "do", "ing", "do", "#", ""]
    assert tokenizer.unknown == 1
    assert len(tokenizer) == 10


def test_byte_level():
    """Bytes that are no letter by themselves are no text; "##" is two marks here, not the inside of a word."""
    tokenizer = TextTokenizer(byte_level(), 8)
    texts = tokenizer.texts()
    known = tokenizer._tokenizer.get_vocab()
    assert [texts[known[token]] for token in ("Ġa", "a", "##", "Ã©", "Ã", "©", "Ġ", "ĊĊ", "ĉ", "<|end|>")] == [
        "a",
        "a",
        "##",
        "é",
        *[""] * 6,
    ]
    assert tokenizer.unknown is None
    assert "".join(texts[token] for token in tokenizer.encode(["é##a a"])[0]) == "é##aa"
    assert len(tokenizer.tokens(["\0"])[0]) == 1


def test_unigram():
    """Its unknown token is a number, which its class does not show."""
    tokenizer = TextTokenizer(unigram(), 8)
    assert tokenizer.unknown == 1
    assert tokenizer.encode(["ab z"]) == [[0, 2, 3, 1]]
    assert tokenizer.texts() == ["a", "", "b", "", "a"]


def test_numbers_with_gaps():
    tokenizer = TextTokenizer(with_gaps(), 8)
    assert len(tokenizer) == 8
    assert tokenizer.texts() == ["a", "", "", "", "", "", "", "b"]
    assert tokenizer.unknown == 3


def test_added_words_are_texts_and_added_marks_are_not():
    made = word_piece()
    made.add_tokens(["river"])
    made.add_special_tokens([AddedToken("<mask>")])
    texts = TextTokenizer(made, 8).texts()
    assert (texts.count("river"), texts.count("<mask>")) == (1, 0)


@pytest.mark.parametrize("make", [word_piece, byte_level, unigram, with_gaps])
def test_a_saved_tokenizer_reads_the_same(make, tmp_path):
    tokenizer = TextTokenizer(make(), 8)
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path, 8)
    assert again.texts() == tokenizer.texts()
    assert again.unknown == tokenizer.unknown
    assert again.tokens(["do a b #"]) == tokenizer.tokens(["do a b #"])


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"], ids=["missing", "empty", "none", "not UTF-8"])
def test_a_damaged_file_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=f"{tmp_path / FILE}: no tokenizer"):
        load_tokenizer(tmp_path, 8)


def test_a_teachers_tokenizer_is_a_copy_without_the_models_marks(tiny_teacher):
    teacher = open_teacher(TeacherSettings(model=str(tiny_teacher), max_length=8))
    _, theirs = teacher.load()
    before = theirs("a tree", padding="max_length", max_length=8, truncation=True)["input_ids"]
    tokenizer = teacher_tokenizer(teacher, 16)
    assert tokenizer.encode(["abc", "", "a" * 20]) == [[4, 5, 6], [], [4] * 16]
    assert tokenizer.texts()[:6] == ["", "", "", "", "a", "b"]
    assert theirs("a tree", padding="max_length", max_length=8, truncation=True)["input_ids"] == before


def test_a_teacher_without_a_tokenizer_is_told_what_to_do():
    with pytest.raises(UserError, match="teacher letters: has no tokenizer; set reader.tokenizer=trained"):
        teacher_tokenizer(LetterTeacher(), 8)


def test_a_tokenizer_of_another_library_is_told_what_to_do(tiny_teacher, monkeypatch):
    teacher = open_teacher(TeacherSettings(model=str(tiny_teacher)))
    monkeypatch.setattr(type(teacher), "load", lambda self: (None, object()))
    with pytest.raises(UserError, match="not of the tokenizers library; set reader.tokenizer=trained"):
        teacher_tokenizer(teacher, 8)


@pytest.mark.sweep
def test_the_embedded_decoders_tokens_are_texts():
    pytest.importorskip("gguf", reason="the embedded decoder is a GGUF file")
    tokenizer = teacher_tokenizer(open_teacher(TeacherSettings(model="smollm2")), 8)
    texts = tokenizer.texts()
    assert all(text.isprintable() and "\ufffd" not in text and text == text.strip() for text in texts)
    assert 0.97 < sum(map(bool, texts)) / len(texts) < 1
    assert [texts[token] for token in tokenizer.encode(["The river's length"])[0]] == ["The", "river", "'s", "length"]


# One of one's own

TEXTS = ["The river is long.", "The rivers are longer, longer.", "Ünder the river: a Stone"] * 5


def test_a_trained_tokenizer_reads_words_in_small_letters_without_accents():
    tokenizer = trained_tokenizer(TEXTS, 100, 16)
    texts = tokenizer.texts()
    (tokens,) = tokenizer.encode(["THE rivér"])
    assert [texts[token] for token in tokens] == ["the", "river"]
    (tokens,) = tokenizer.encode(["understone."])
    assert "".join(texts[token] for token in tokens) == "understone."
    assert tokenizer.encode(["Ω", "the Ω"]) == [[tokenizer.unknown], [tokens_of(tokenizer, "the"), tokenizer.unknown]]
    assert texts[tokenizer.unknown] == ""
    assert len(tokenizer) <= 100


def tokens_of(tokenizer, word):
    ((token,),) = tokenizer.encode([word])
    return token


def test_a_trained_vocabulary_keeps_its_size_and_the_frequent_letters():
    """A thousand letters want two entries each."""
    rare = ["".join(chr(0x4E00 + 7 * i + j) for j in range(7)) for i in range(140)]
    tokenizer = trained_tokenizer([*TEXTS, *rare], 120, 16)
    assert len(tokenizer) <= 120
    assert tokenizer.unknown not in tokenizer.encode(["the long stone"])[0]
    assert tokenizer.encode([rare[-1]]) == [[tokenizer.unknown] * 7]


def test_texts_without_words_teach_nothing():
    for texts in ([], ["", " "]):
        tokenizer = trained_tokenizer(texts, 100, 8)
        assert tokenizer.encode(["a", ""]) == [[tokenizer.unknown], []]


def test_the_same_texts_give_the_same_tokenizer_in_every_process(tmp_path):
    """The library's own choice depends on hashes, which are others in each process."""
    code = (
        "import sys, random; from pathlib import Path; from cube3d.reader.tokenizer import trained_tokenizer as t;"
        "d = random.Random(0); w = [''.join(d.choices('abcdefghijklmnop', k=6)) for _ in range(400)];"
        "t([' '.join(d.choices(w, k=6)) for _ in range(300)], 500, 8).save(Path(sys.argv[1]))"
    )
    for name in ("a", "b"):
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)],
            cwd=ROOT,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            check=True,
        )
    assert (tmp_path / "a" / FILE).read_bytes() == (tmp_path / "b" / FILE).read_bytes()

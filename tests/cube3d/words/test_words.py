"""Word vectors: gensim's files read as gensim and fastText itself read them, cut and damaged files, and writing."""

import struct
from pathlib import Path

import numpy as np
import pytest

from cube3d.errors import UserError
from cube3d.words import read_word_vectors, write_word2vec
from cube3d.words.fasttext import Subwords

gensim = pytest.importorskip("gensim", reason="gensim is the independent reader")
DATA = Path(gensim.__file__).parent / "test" / "test_data"

TEXT = ["lee_fasttext.vec", "crime-and-punishment.vec", "toy-model.vec", "word2vec_pre_kv_c"]
BINARY = ["euclidean_vectors.bin", "poincare_vectors.bin", "high_precision.kv.bin"]
OLD = ["lee_fasttext.bin", "non_ascii_fasttext.bin"]
NEW = ["lee_fasttext_new.bin", "crime-and-punishment.bin", "toy-model.bin", "toy-model-pretrained.bin"]
UNSEEN = ["quark", "незнакомый", "日本語", "übergrößen", "a", "🎲🎲", "multi word"]
RANDOM_BITS = np.random.default_rng(0).integers(0, 2**31, 300, np.uint32).view(np.float32)
# Where the matrix of words and subwords lies: their rows times their numbers, four bytes each, end there.
MATRIX_END = {"toy-model.bin": 2856, "non_ascii_fasttext.bin": 83_855}
FIRST_MATRIX = MATRIX_END["toy-model.bin"] - 4 * 5 * (22 + 100)
VALUES = RANDOM_BITS[np.isfinite(RANDOM_BITS)][:288].reshape(4, 72)


@pytest.mark.parametrize("name", [*TEXT, *BINARY, "test_glove.txt"])
def test_words_and_vectors_are_what_gensim_reads(name):
    ours = read_word_vectors(DATA / name)
    theirs = gensim.models.KeyedVectors.load_word2vec_format(
        str(DATA / name), binary=name in BINARY, no_header="glove" in name
    )
    assert len(ours) > 1
    assert list(ours) == theirs.index_to_key
    assert np.array_equal(ours.matrix, theirs.vectors)
    assert ours.matrix.dtype == np.float32


@pytest.mark.parametrize("name", [*OLD, *NEW])
def test_fasttext_vectors_are_what_gensim_composes(name):
    """In the vocabulary and out of it. gensim gives the end-of-sentence mark subwords, whatever fastText did."""
    ours = read_word_vectors(DATA / name)
    theirs = gensim.models.fasttext.load_facebook_vectors(str(DATA / name))
    assert list(ours) == theirs.index_to_key
    words = [word for word in [*ours, *UNSEEN] if word != "</s>" and ours.vector(word) is not None]
    assert len(words) > len(UNSEEN)
    np.testing.assert_allclose(
        np.array([ours.vector(word) for word in words]), np.array([theirs[word] for word in words]), atol=1e-6
    )


@pytest.mark.parametrize("name", ["crime-and-punishment", "toy-model", "lee_fasttext"])
def test_fasttext_vectors_are_what_fasttext_itself_wrote(name):
    """The ``.vec`` file beside a model holds the vectors that fastText composed, to five digits; the mark of a
    sentence's end among them, with subwords in the oldest files."""
    model, written = read_word_vectors(DATA / f"{name}.bin"), read_word_vectors(DATA / f"{name}.vec")
    assert ("</s>" in model) == (name != "toy-model")
    assert list(model) == list(written)
    np.testing.assert_allclose(model.matrix, written.matrix, rtol=1e-4, atol=1e-6)


def test_ngram_rows_are_gensims():
    from gensim.models.fasttext import ft_ngram_hashes

    for shortest, longest in [(1, 3), (3, 6), (2, 2), (4, 3)]:
        subwords = Subwords(first=50, buckets=1000, shortest=shortest, longest=longest)
        for word in [*UNSEEN, "", "é"]:
            rows = subwords.rows(word.encode())
            # gensim counts "<" and ">" alone as n-grams; fastText does not.
            theirs = sorted(50 + h for h in ft_ngram_hashes(word, max(shortest, 2), longest, 1000))
            ours = sorted(
                row for row, gram in zip(rows, subwords.grams(word.encode()), strict=True) if len(gram.decode()) >= 2
            )
            assert ours == theirs, (word, shortest, longest)
    assert Subwords(0, 100, 1, 1).grams("aé".encode()) == [b"a", "é".encode()]


def test_words_that_are_not_utf8_lose_nothing():
    """A model of words in code page 852."""
    vectors = read_word_vectors(DATA / "cp852_fasttext.bin")
    raw = [word.encode("utf-8", "surrogateescape") for word in vectors]
    assert any(byte > 127 for word in raw for byte in word)
    content = (DATA / "cp852_fasttext.bin").read_bytes()
    assert all(word + b"\0" in content for word in raw)
    assert np.isfinite(vectors.matrix).all()


def test_a_word_without_a_vector_has_none():
    assert read_word_vectors(DATA / "toy-model.vec").vector("unheard-of") is None


@pytest.mark.parametrize("name", ["toy-model.bin", "high_precision.kv.bin"])
def test_binary_vectors_are_mapped_not_loaded(name, tmp_path):
    """What another process writes into the file afterwards shows."""
    path = tmp_path / name
    path.write_bytes((DATA / name).read_bytes())
    vectors = read_word_vectors(path)
    word = vectors.words[0]
    before, content = vectors.vector(word).copy(), path.read_bytes()
    with path.open("r+b") as file:  # the last number of the first vector
        file.seek(content.index(before[-1:].tobytes()) if "toy" not in name else FIRST_MATRIX + 16)
        file.write(np.float32(8).tobytes())
    assert (vectors.vector(word)[:-1] == before[:-1]).all()
    assert vectors.vector(word)[-1] > before[-1] + 1


# Cut and damaged files


@pytest.mark.parametrize("name", ["toy-model.vec", "toy-model.bin", "non_ascii_fasttext.bin", "high_precision.kv.bin"])
def test_a_cut_file_is_an_error_with_its_place(name, tmp_path):
    content = (DATA / name).read_bytes()
    path = tmp_path / name
    # Behind the matrix of a fastText model lies what only training needs, and is not read.
    needed = MATRIX_END.get(name, len(content))
    for size in range(1, needed, max(1, needed // 150)):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"byte \d+: |:\d+: "):
            read_word_vectors(path)


def altered(name, tmp_path, at, new):
    content = bytearray((DATA / name).read_bytes())
    content[at : at + len(new)] = new
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"2 2\na 1 2\nb 1\n", r":3: expected a word and 2 numbers, found 'b 1'"),
        (b"2 2\na 1 2\nb 1 x\n", r":3: .*'x'"),
        (b"1 2\na 1 2\nb 1 2\n", r":3: another word, but the header says 1"),
        (b"3 2\na 1 2\nb 1 2\n", r":3: truncated: the header says 3 words, the file ends after 2"),
        (b"2 2\na 1 2\nb 1 2", r":3: truncated: the last line has no end"),
        (b"a 1 2\nb 1 2\na 3 4\n", r"'a' is there twice, as number 0 and 2"),
        (b"a 1 2\n\nb 1 2\n", r":2: expected a word and 2 numbers, found ''"),
        (b"", "is empty"),
    ],
)
def test_damaged_text_is_an_error_with_the_line(content, message, tmp_path):
    path = tmp_path / "words.vec"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_word_vectors(path)


def test_damaged_binaries_are_errors_with_the_byte(tmp_path):
    header = struct.calcsize("<2i12id")
    path = tmp_path / "words.bin"
    path.write_bytes(b"1 2\na " + bytes(8) + b"\nmore")
    with pytest.raises(UserError, match="byte 14: more bytes follow the last of 1 words"):
        read_word_vectors(path)
    path.write_bytes(b"1 0\na ")
    with pytest.raises(UserError, match="vectors of 0 numbers"):
        read_word_vectors(path)
    with pytest.raises(UserError, match="version 99"):
        read_word_vectors(altered("toy-model.bin", tmp_path, 4, struct.pack("<i", 99)))
    with pytest.raises(UserError, match="neither a fastText model nor word2vec"):
        read_word_vectors(altered("toy-model.bin", tmp_path, header, struct.pack("<i", -5)))
    with pytest.raises(UserError, match="a pruned model"):
        read_word_vectors(altered("toy-model.bin", tmp_path, header + 20, struct.pack("<q", 3)))
    with pytest.raises(UserError, match="a matrix of"):  # another number of buckets
        read_word_vectors(altered("toy-model.bin", tmp_path, 8 + 4 * 8, struct.pack("<i", 7)))
    with pytest.raises(UserError, match="a classifier with 2 labels"):
        read_word_vectors(DATA / "pang_lee_polarity_fasttext.bin")
    with pytest.raises(UserError, match="neither a fastText model nor word2vec"):
        read_word_vectors(DATA / "varembed_morfessor.bin")


def test_numbers_that_are_not_finite_are_an_error_when_they_are_read(tmp_path):
    path = tmp_path / "words.vec"
    path.write_text("2 2\nfine 1 2\nbroken nan 1\n")
    vectors = read_word_vectors(path)
    assert vectors.vector("fine").tolist() == [1, 2]
    with pytest.raises(UserError, match="the vector of 'broken' is not finite"):
        vectors.vector("broken")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_word_vectors(tmp_path / "none.vec")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_word_vectors(tmp_path)


# Words that formats struggle with


def test_words_of_a_text_file_may_hold_spaces_and_odd_line_ends(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_bytes("the 1 2\n. . . 3 4\nx\u2028\x85y 5 6 \r\nשלום 7 8\n".encode())
    vectors = read_word_vectors(path)
    assert list(vectors) == ["the", ". . .", "x\u2028\x85y", "שלום"]
    assert vectors.matrix.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize("suffix", [".bin", ".vec"])
def test_what_is_written_is_read_back_bit_for_bit(suffix, tmp_path):
    """Any float32; by gensim, too."""
    words, path = ["plain", "שלום", "</s>", "日本\u3000語"], tmp_path / f"words{suffix}"
    write_word2vec(path, words, VALUES)
    again = read_word_vectors(path)
    assert list(again) == words
    assert again.matrix.tobytes() == VALUES.tobytes()
    theirs = gensim.models.KeyedVectors.load_word2vec_format(str(path), binary=suffix == ".bin")
    assert theirs.vectors.tobytes() == VALUES.tobytes()
    assert theirs.index_to_key == words


def test_bytes_that_are_not_utf8_are_written_as_they_were(tmp_path):
    model = read_word_vectors(DATA / "cp852_fasttext.bin")
    write_word2vec(tmp_path / "words.vec", model.words, model.matrix)
    assert read_word_vectors(tmp_path / "words.vec").words == model.words


@pytest.mark.parametrize("words", [["two words", "b"], ["", "b"], ["line\nend", "b"], ["a\tb", "b"], ["b", "b"]])
def test_words_that_the_format_cannot_hold_are_refused(words, tmp_path):
    with pytest.raises(UserError, match=r"cannot hold the word|there twice"):
        write_word2vec(tmp_path / "words.vec", words, VALUES[:2])
    assert list(tmp_path.iterdir()) == []


# Files that editors and other tools touched


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf2 2\na 1 2\nb c 3 4\n",
        b" 2 2\n a 1 2\n b c 3 4\n",
        b"2\t2\na\t1\t2\nb c\t3\t4\n",
        b"2\t 2 \r\na  1 \t2\t\r\nb c  3  4\r\n",
        b"\xef\xbb\xbfa 1 2\nb c 3 4\n",
        b"  a 1 2\nb c 3 4\n",
        b"a\t1\t2\n\tb c\t3\t4\n",
    ],
    ids=["mark", "spaces", "tabs", "both", "GloVe, mark", "GloVe, spaces", "GloVe, tabs"],
)
def test_byte_order_mark_spaces_and_tabs_are_no_part_of_a_word(content, tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    vectors = read_word_vectors(path)
    assert list(vectors) == ["a", "b c"]
    assert vectors.matrix.tolist() == [[1, 2], [3, 4]]


def test_a_binary_file_may_begin_with_a_byte_order_mark(tmp_path):
    write_word2vec(tmp_path / "words.bin", ["a", "b"], VALUES[:2])
    content = (tmp_path / "words.bin").read_bytes()
    (tmp_path / "words.bin").write_bytes(b"\xef\xbb\xbf" + content)
    vectors = read_word_vectors(tmp_path / "words.bin")
    assert list(vectors) == ["a", "b"]
    assert vectors.matrix.tobytes() == VALUES[:2].tobytes()


def test_spaces_within_a_word_stay_as_they_are(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(b"2 2\n.  .\t. 1 2\nx\x0b 3 4\n")
    assert list(read_word_vectors(path)) == [".  .\t.", "x\x0b"]


@pytest.mark.parametrize("header", [b"", b"3 2\n"], ids=["GloVe", "header"])
def test_a_word_that_is_there_twice_names_both_lines(header, tmp_path):
    path = tmp_path / "words.vec"
    path.write_bytes(header + b"a 1 2\nb 1 2\na 3 4\n")
    first = 2 if header else 1
    with pytest.raises(UserError, match=f"'a' is there twice, as number 0 and 2, in line {first} and {first + 2}"):
        read_word_vectors(path)


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["gensim", "word2vec"])
@pytest.mark.parametrize("dim", [4, 50])
def test_words_with_spaces_in_a_binary_file_lose_no_other(end, dim, tmp_path):
    """Every byte of a number comes up, spaces too, and words of any length follow each other."""
    draw = np.random.default_rng(dim)
    words = [f"{i}{' x' * (i % 3)} York{'e' * (i % 5)}" if i % 2 else f"w{i}{'e' * (i % 7)}" for i in range(1000)]
    matrix = draw.normal(0, 0.3, (len(words), dim)).astype(np.float32)
    rows = [word.encode() + b" " + row.tobytes() + end for word, row in zip(words, matrix, strict=True)]
    path = tmp_path / "words.bin"
    path.write_bytes(f"{len(words)} {dim}\n".encode() + b"".join(rows))
    vectors = read_word_vectors(path)
    assert list(vectors) == words
    assert vectors.matrix.tobytes() == matrix.tobytes()

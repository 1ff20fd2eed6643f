"""Dictionaries of dictd: senses as prose, made from entries as WordNet and GCIDE have them, and damaged files."""

import gzip
import string
from pathlib import Path

import pytest

from cube3d.errors import UserError
from cube3d.texts.dictionary import entries

DIGITS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"

WORDNET = """abstract
    adj 1: existing only in the mind; separated from embodiment;
           "abstract words like `truth' and `justice'" [ant:
           {concrete}]
    2: dealing with a subject in the abstract without practical
       purpose [syn: {abstract}, {ideal}]
    n 1: a sketchy summary of the main points
"""

SOAP = """Soap \\Soap\\ (s[=o]p), n. [OE. sope, AS. s[=a]pe; akin to D. zeep, G.
   seife, OHG. seifa, Sw. s?pa, and perhaps to AS. s[imac]pan to
   drip. Cf. {Saponaceous}.]
   A substance which dissolves in water, and is used as a
   cleansing agent. Soap is produced by combining fats with
   alkalies. See the Note below.
   [1913 Webster] It is also made of
   lye.
   [1913 Webster] Soapberry tree

   Note: In general, soaps are of two classes, hard and soft.
         [1913 Webster]

               The purifying action of soap depends upon the
               water.                             --Roscoe.
         [1913 Webster]

   {Castile soap}, a fine-grained hard soap, made of olive oil;
      -- called also {Marseilles soap}.

   {Rock soap}. (Min.) See {Bole}, n., 2.

   Syn: Cleanser; detergent.
        [WordNet 1.5]
"""

HIP = """Hip \\Hip\\, v. t. [imp. & p. p. {Hipped}; p. pr. & vb. n.
   {Hipping}.]
   1. To dislocate or sprain the hip of (a quadruped). [R.]
      --Sir W. Scott.
      [1913 Webster]

            I was hipped on all sides by them.    -- Shak.
      [1913 Webster]

   2. (Arch. & Naut.)
      (a) To make with a hip, as a roof; as, a hipped caf['e].
      (b) Same as {Hoop}.
          [1913 Webster]

   3. A word of Greek ??? origin.

   {Hipped roof} (Arch.), a roof with sloping ends. --Gwilt.
"""


def number(value):
    digits = ""
    while True:
        digits = DIGITS[value % 64] + digits
        value //= 64
        if not value:
            return digits


def write(folder: Path, made: dict[str, str | None], encoding="utf-8", name="made.dict") -> Path:
    """Headwords with their entries; None: that of the headword before."""
    content, index = b"", ""
    for headword, entry in made.items():
        if entry is not None:
            start, length = len(content), len(entry.encode(encoding))
            content += entry.encode(encoding)
        index += f"{headword}\t{number(start)}\t{number(length)}\n"
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".dz") else content)
    (folder / "made.index").write_bytes(index.encode(encoding))
    return path


@pytest.mark.parametrize("name", ["made.dict", "made.dict.dz"])
def test_senses_of_wordnet(tmp_path, name):
    assert list(entries(write(tmp_path, {"abstract": WORDNET}, name=name))) == [
        "What is abstract?",
        "abstract: existing only in the mind; separated from embodiment; \"abstract words like 'truth' and 'justice'\"",
        "abstract: dealing with a subject in the abstract without practical purpose",
        "abstract: a sketchy summary of the main points",
    ]


def test_pronunciation_etymology_synonyms_quotations_and_references_are_left_out(tmp_path):
    """An entry is read once, however many names lead to it, and a phrase in it is a headword of its own."""
    path = write(tmp_path, {"Soap": SOAP, "Marseilles soap": None, "Castile soap": None})
    assert list(entries(path)) == [
        "What is Soap?",
        "Soap: A substance which dissolves in water, and is used as a cleansing agent.",
        "Soap is produced by combining fats with alkalies.",
        "It is also made of lye.",
        "In general, soaps are of two classes, hard and soft.",
        "Castile soap: a fine-grained hard soap, made of olive oil; called also Marseilles soap.",
        "What is Marseilles soap?",
        "What is Castile soap?",
    ]


def test_senses_within_senses_and_letters_in_brackets(tmp_path):
    assert list(entries(write(tmp_path, {"Hip": HIP}))) == [
        "What is Hip?",
        "Hip: To dislocate or sprain the hip of (a quadruped).",
        "Hip: To make with a hip, as a roof; as, a hipped cafe.",
        "Hipped roof: a roof with sloping ends.",
    ]


def test_names_are_spelled_as_in_their_entries(tmp_path):
    entry = "Ada Lovelace\n    n 1: an English mathematician of note\n"
    assert list(entries(write(tmp_path, {"ada lovelace": entry}))) == [
        "What is Ada Lovelace?",
        "Ada Lovelace: an English mathematician of note",
    ]


def test_letters_in_brackets_belong_to_a_headword(tmp_path):
    entry = "Caf['e] \\Ca`f['e]\"\\ (k[.a]`f[asl]\"), n. [F.]\n   A place where coffee is sold.\n"
    assert list(entries(write(tmp_path, {"Cafe": entry}))) == [
        "What is Cafe?",
        "Cafe: A place where coffee is sold.",
    ]


def test_what_a_dictionary_tells_of_itself_is_no_entry(tmp_path):
    about = "00-database-info\n   A dictionary that somebody made\n"
    made = {"00-database-info": about, "00databaseshort": about, "007": "007\n  n 1: an agent of a certain name\n"}
    assert list(entries(write(tmp_path, made))) == ["What is 007?", "007: an agent of a certain name"]


def test_latin_1_is_read(tmp_path):
    path = write(tmp_path, {"café": "café\n  n 1: a place where coffee is sérved\n"}, "latin-1")
    assert list(entries(path)) == ["What is café?", "café: a place where coffee is sérved"]


def test_an_entry_without_senses_is_a_question_alone(tmp_path):
    assert list(entries(write(tmp_path, {"bare": "bare", "none": "", "both": "both\n\n"}))) == [
        "What is bare?",
        "What is none?",
        "What is both?",
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("word\tA", "made.index:2: no entry"),
        ("word\tA\t", "made.index:2: no entry"),
        ("word\tA\t-", "made.index:2: no entry"),
        ("", "made.index:2: no entry"),
        ("word\tB\tCX", "made.index:2: 'word' ends at byte 152; "),
    ],
)
def test_a_damaged_index_is_named_with_its_line(tmp_path, line, told):
    path = write(tmp_path, {"a": "a\n  the first of the letters\n"})
    with (tmp_path / "made.index").open("a") as index:
        index.write(f"{line}\nb\tA\tB\n")
    with pytest.raises(UserError, match=told):
        list(entries(path))


def test_an_empty_index_is_named(tmp_path):
    path = write(tmp_path, {})
    with pytest.raises(UserError, match="made.index:1: no entry"):
        list(entries(path))


def damaged(content, how):
    if how == "no gzip":
        return b"no gzip"
    if how == "half":
        return content[: len(content) // 2]
    if how == "flipped":
        return content[:12] + bytes(255 - byte for byte in content[12:30]) + content[30:]
    return b""


@pytest.mark.parametrize("how", ["no gzip", "half", "flipped", "empty"])
def test_a_damaged_archive_is_named(tmp_path, how):
    path = write(tmp_path, {"abstract": WORDNET}, name="made.dict.dz")
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(UserError, match="made"):
        list(entries(path))


@pytest.mark.parametrize("missing", ["made.dict", "made.index"])
def test_a_missing_file_is_named(tmp_path, missing):
    path = write(tmp_path, {"abstract": WORDNET})
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=rf"made.dict: .*made.index cannot be read: .*{missing}"):
        list(entries(path))

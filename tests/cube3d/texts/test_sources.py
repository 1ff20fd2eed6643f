"""Where texts come from, and what a source that cannot be read is answered with."""

import pytest

from cube3d.errors import UserError
from cube3d.pairs import Pair
from cube3d.texts import read_texts

PAIR = Pair("And where?", "The river ends there. It is very long.", "made:1", context=("What ends?", "A river."))

MODULE = '''"""Cuts all kinds of things."""

class Tool:
    """Cuts :class:`~things.Wood` into two. It is very sharp."""

    def _hidden(self):
        """Says what nobody asks for."""

    def bare(self): ...

class Copy:
    """Cuts :class:`~things.Wood` into two. It is very sharp."""

async def make():
    "Half of a pair is \\ud800 of no use"
'''


def texts(*sources, pairs=(), said=None):
    return list(read_texts([str(source) for source in sources], pairs, [].append if said is None else said.append))


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "made_texts").mkdir()
    (tmp_path / "made_texts" / "__init__.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "made_texts"


def write(folder, name, content: bytes):
    (folder / name).write_bytes(content)
    return folder / name


def test_pairs_give_prompts_answers_and_the_answers_sentences():
    assert texts("pairs", pairs=[PAIR]) == [
        "What ends?\nA river.\nAnd where?",
        "The river ends there. It is very long.",
        "The river ends there.",
        "It is very long.",
    ]


def test_a_module_gives_its_prose_and_asks_for_its_public_names(package):
    assert sorted(texts("docs:made_texts")) == sorted(
        [
            "What does made_texts do?",
            "Cuts all kinds of things.",
            "What does made_texts.Tool do?",
            "What does made_texts.Copy do?",
            "Cuts things.Wood into two.",
            "It is very sharp.",
            "Says what nobody asks for.",
            "What does made_texts.make do?",
            "Half of a pair is ? of no use",
        ]
    )


def test_a_package_has_a_readme():
    assert any("JSON" not in text and "YAML is a" in text for text in texts("docs:yaml"))


def test_a_file_that_is_no_python_is_told(package):
    (package / "template.py").write_text("def {{ name }}():\n")
    (package / "other.py").write_text('"""Tells what others do not."""\n')
    said: list[str] = []
    assert "Tells what others do not." in texts("docs:made_texts", said=said)
    assert said == [f"docs:made_texts: 1 of 3 files are no Python of this version, such as {package / 'template.py'}"]


@pytest.mark.parametrize("name", ["a.txt", "a.md"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_text_file_gives_its_sentences(tmp_path, name, end, mark):
    content = end.join(["The river is", "long. The sea is deep.", "", "The end of it"])
    path = write(tmp_path, name, mark + content.encode())
    assert texts(path) == ["The river is long.", "The sea is deep.", "The end of it"]


def test_objects_give_their_texts_as_they_are(tmp_path):
    path = write(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"text": " x = 1 ", "n": 1}\r\n\r\n{"text": "A. B\\u00e9"}\n')
    assert texts(path) == ["x = 1", "A. Bé"]


def test_sources_come_one_after_the_other(tmp_path):
    first, second = (write(tmp_path, name, f"The text of {name} here".encode()) for name in ("a.txt", "b.txt"))
    assert texts(second, first) == ["The text of b.txt here", "The text of a.txt here"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"", "a.txt': there is no prose in it"),
        ("a.txt", b"\n \r\n", "a.txt': there is no prose in it"),
        ("a.jsonl", b"", "a.jsonl': there is no prose in it"),
        ("a.txt", b"One line.\nThe caf\xe9 is open.", "a.txt:2: not UTF-8 (byte 0xe9); convert the file"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}', "a.jsonl:2: not UTF-8 (byte 0xe9)"),
        ("a.txt", b"One line.\n\nA zero \0 byte", "a.txt:3: a zero byte"),
        ("a.txt", "UTF-16 is not read".encode("utf-16"), "a.txt:1: not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "a.jsonl:2: not JSON"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n\n["text"]', "a.jsonl:3: expected an object with a 'text'"),
        ("a.jsonl", b'{"txt": "a"}', "a.jsonl:1: expected an object with a 'text'"),
        ("a.jsonl", b'{"text": 3}', "a.jsonl:1: expected an object with a 'text'"),
        ("a.jsonl", b'{"text": " "}', "a.jsonl:1: expected an object with a 'text' that is not blank"),
        ("a.jsonl", b'{"text": "a\\ud800"}', "a.jsonl:1: the text holds half of a surrogate pair"),
        ("a.csv", b"text", "a.csv': unknown kind; valid: 'pairs', 'docs:<module>', .txt, .md, .jsonl"),
        ("a", b"text", "a': unknown kind"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, told):
    with pytest.raises(UserError) as caught:
        texts(write(tmp_path, name, content))
    assert str(tmp_path / name) in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.dict"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(UserError, match=f"{name}: .*No such file"):
        texts(tmp_path / name)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UserError, match="a.txt: cannot be read: Is a directory"):
        texts(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("no_such_module", "docs:no_such_module: no Python source of a module 'no_such_module' is installed"),
        ("_json", "docs:_json: has no Python source"),
        ("", "docs:: no Python source of a module ''"),
        ("made_texts.bare", "'docs:made_texts.bare': there is no prose in it"),
    ],
)
def test_a_module_without_prose_is_named(package, module, told):
    (package / "bare.py").write_text("x = 1\n")
    with pytest.raises(UserError) as caught:
        texts(f"docs:{module}")
    assert told in str(caught.value)


def test_no_sources_and_a_source_that_is_there_twice_are_errors(tmp_path):
    with pytest.raises(UserError, match="no texts; name some \\('pairs'"):
        texts()
    with pytest.raises(UserError, match="'pairs' is there twice"):
        texts("pairs", "docs:json", "pairs", pairs=[PAIR])
    with pytest.raises(UserError, match="'pairs': there is no prose in it"):
        texts("pairs")

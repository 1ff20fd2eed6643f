"""Prose out of documents: paragraphs, sentences, and what is too short, too long or no language."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator

SHORTEST, LONGEST = 12, 400
"""Characters of a text; a longer sentence is cut at its clauses."""

LETTERS = 0.8
"""Least share of letters and spaces; code, tables and signatures have fewer."""

_PARAGRAPH = re.compile(r"\n\s*\n")
# No sentence ends after "e.g.", the "J." of a name or a title. Scripts with marks of their own put no space after them.
_SENTENCE = re.compile(
    r"(?<=[.?!…])(?<!\b\w\.)(?<!\b(?:Dr|Mr|St)\.)(?<!\bMrs\.)\s+(?=[^\W\d_a-zß-öø-ÿа-я]|[\"'(“„‘«¿¡])|(?<=[。！？।])\s*"
)
_CLAUSE = re.compile(r"(?<=[;:,、，；])\s+")
_OPENING = "\"'(“„‘«「『¿¡"
# Marks of reStructuredText and Markdown: what they set apart becomes a paragraph, and what they put around words goes.
# No pattern looks on without a limit, or a file of opening brackets would take for ever.
_MARKS = tuple(
    (re.compile(pattern, re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"^[ \t]*(```|~~~).*\n(?:(?![ \t]*\1).*\n)*[ \t]*\1.*$", "\n"),  # code
        (r"^[ \t]*>>> .*(?:\n.*\S.*)*", "\n"),  # an example with its output
        (r"^[ \t]*([=\-~^\"'#*+.])\1{2,}[ \t]*$", "\n"),  # what underlines a heading
        (r"^[ \t]*#+[ \t]+(.*)$", r"\n\1\n"),
        (r"^[ \t]*(?:[-*+•]|\d{1,3}[.)]|\.\.[ \t]+[\w-]+::)[ \t]+", "\n"),  # items and directives
        (r"</?[A-Za-z][^<>]{0,500}>", " "),
        (r":[\w:]{1,40}:`~?([^`<]{0,200}?)(?:\s{0,9}<[^`]{0,200}>)?`", r"\1"),
        (r"!?\[([^\]]{0,300})\]\([^)]{0,500}\)", r"\1"),
        (r"`{1,3}|(?<!\w)[*_]{1,3}(?=\S)|(?<=\S)[*_]{1,3}(?!\w)", ""),
    )
)


class _Strange(dict[int, int | None]):
    """For ``str.translate``: leaves of a text what is neither letter nor space. Vowel signs are parts of letters."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code))[0] in "LMZ" else code
        return self[code]


_STRANGE = _Strange()


def sentences(document: str) -> Iterator[str]:
    """The sentences of a document that are prose, each on one line."""
    # An escape in a docstring can be half of a surrogate pair, which no file can hold.
    document = "\n".join(document.encode(errors="replace").decode().splitlines())
    for pattern, replacement in _MARKS:
        document = pattern.sub(replacement, document)
    for paragraph in _PARAGRAPH.split(document):
        yield from prose(paragraph)


def prose(paragraph: str) -> Iterator[str]:
    """The sentences of a paragraph that are prose, each on one line; its marks are left as they are."""
    for sentence in _SENTENCE.split(" ".join(paragraph.split())):
        yield from filter(is_prose, _shortened(sentence))


def is_prose(text: str) -> bool:
    """Whether a text is of a sane length and made of words."""
    if not SHORTEST <= len(text) <= LONGEST or not (text[0].isalnum() or text[0] in _OPENING):
        return False
    if text.isascii() and " " not in text:  # a name or an address; Chinese and Thai have no spaces
        return False
    return len(text.translate(_STRANGE)) <= (1 - LETTERS) * len(text)


def _shortened(sentence: str) -> Iterator[str]:
    """The sentence, or as many of its clauses at a time as are short enough; a clause that is not is cut at words."""
    if len(sentence) <= LONGEST:
        yield sentence
        return
    taken = ""
    for clause in _CLAUSE.split(sentence):
        for part in textwrap.wrap(clause, LONGEST, break_long_words=False, break_on_hyphens=False):
            if taken and len(taken) + 1 + len(part) > LONGEST:
                yield taken
                taken = ""
            taken = f"{taken} {part}".strip()
    yield taken

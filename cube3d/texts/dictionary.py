"""Dictionaries in the format of dictd, as Linux distributions ship them (``dict-wn``, ``dict-gcide``)."""

from __future__ import annotations

import gzip
import re
import string
import zlib
from collections.abc import Iterator
from pathlib import Path

from cube3d.errors import UserError
from cube3d.texts.sentences import prose

_DIGITS = {c: i for i, c in enumerate(string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/")}

_ABOUT = re.compile(r"00-|00database")
"""How the names begin under which a dictionary tells of itself."""

# GCIDE writes letters that it had no others for in brackets, "caf['e]"; other brackets hold what is no prose.
_LETTER = re.compile(r"\[[^\w\[\]]{0,2}(ae|oe|oo|AE|OE|[A-Za-z])(?:\^|mac|um|dd|sl|cir)?\]")
_SOURCE = re.compile(r"^\s*\[[^\[\]\n]*(?:Webster|WordNet|PJC)[^\[\]\n]*\]", re.MULTILINE)
_BRACKET = re.compile(r"\[[^\[\]]*\]")
_QUOTED = re.compile(r"`([^`'\n]{1,40})'")

_AFTER_HEADWORD = re.compile(r"[\\/(\[<\n]")
_PARAGRAPH = re.compile(r"\n\s*\n")
_SENSE = re.compile(r"^\s+(?:(?:n|v|adj|adv) \d*:|\d+[.:]|\([a-z]\))\s", re.MULTILINE)
_PHRASE = re.compile(r"\s*\{([^{}]+)\}")
_LABELS = re.compile(r"^(?:[\s.,]|Note:|\([A-Z][\w.,&' ]{1,40}\)|(?:n|a|adj|adv|pl|v\. [it])\.(?=\s|$))*")
_ADDED = re.compile(r";\s+--\s+(?=[a-z])")
_CITED = re.compile(r"\s*--\s?(?=[A-Z\d])[^;]{1,60}$")

QUOTATION = 9
"""Spaces before a paragraph that is a quotation: GCIDE sets them off by more than what it says itself."""

# What only names another entry, a quotation without its author, and what was not written out.
_LEFTOVER = re.compile(
    r"(?:[^:]{1,60}: )?(?:See|Same as|Cf\.|Obs\.|Compare|Opposed to)(?: |$)|\"|.*(?:[\[\]\\|<>*\ufffd]|\?\w|\s\?|\?\?)"
)


def entries(path: Path) -> Iterator[str]:
    """The senses of each entry as sentences, the first ``headword: sense``, and each headword as a question.

    Pronunciation, etymology, synonyms, quotations and what only refers to another entry are left out. A phrase that is
    explained within an entry is a headword of its own.

    Args:
        path: ``NAME.dict`` or ``NAME.dict.dz``, beside its ``NAME.index``.

    Raises:
        UserError: no index beside it, or one that does not fit it; with the line, one that is no entry.
    """
    index = path.with_name(path.name.removesuffix(".dz").removesuffix(".dict") + ".index")
    try:
        lines = index.read_bytes().removesuffix(b"\n").split(b"\n")
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".dz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: a dictionary of dictd and its {index.name} cannot be read: {error}") from error
    read: set[tuple[int, int]] = set()
    for number, line in enumerate(lines, start=1):
        try:
            name, *place = read_text(line).split("\t")
            start, length = map(_number, place[:2])
        except (ValueError, KeyError) as error:
            raise UserError(f"{index}:{number}: no entry of a dictionary's index: {read_text(line[:60])!r}") from error
        if start + length > len(content):
            raise UserError(f"{index}:{number}: {name!r} ends at byte {start + length}; {path} has {len(content)}")
        if _ABOUT.match(name):
            continue
        entry = _LETTER.sub(r"\1", read_text(content[start : start + length]))
        headword = _AFTER_HEADWORD.split(entry, maxsplit=1)[0].strip()
        # An index may spell all in small letters. Other forms and phrases of an entry have lines of their own in it.
        yield f"What is {headword if headword.casefold() == name.casefold() else name}?"
        if (start, length) not in read:
            read.add((start, length))
            yield from _senses(headword or name, entry)


def _senses(term: str, entry: str) -> Iterator[str]:
    entry = _SOURCE.sub("\n\n ", _QUOTED.sub(r"'\1'", entry))
    while (shorter := _BRACKET.sub("", entry)) != entry:
        entry = shorter
    _, _, body = entry.partition("\n")
    begun = False
    for paragraph in _PARAGRAPH.split(body):
        if paragraph.startswith(" " * QUOTATION) or paragraph.lstrip().startswith(("Syn:", "Usage:")):
            continue
        phrase = _PHRASE.match(paragraph)
        if phrase:
            term, paragraph, begun = phrase[1], paragraph[phrase.end() :], False
        unnumbered, *numbered = _SENSE.split(paragraph)
        for sense in (unnumbered, *numbered):
            gloss = _CITED.sub("", _ADDED.sub("; ", _LABELS.sub("", sense)).rstrip())
            further = begun and sense is unnumbered
            # After a source may come the headword of the next entry, or more of this one.
            if not gloss or (further and not gloss.endswith(".")):
                continue
            begun = True
            gloss = (gloss if further else f"{term}: {gloss}").replace("{", "").replace("}", "")
            yield from (text for text in prose(gloss) if not _LEFTOVER.match(text))


def read_text(content: bytes) -> str:
    """Old dictionaries are Latin-1, and some that are not hold a byte of it."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _number(digits: str) -> int:
    """Of the index's own base 64."""
    if not digits:
        raise ValueError("no digits")
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS[digit]
    return value

"""word2vec's binary format: a header line, then each word, a space and its float32 numbers."""

from __future__ import annotations

import numpy as np

from cube3d.words.files import BOM, Cursor
from cube3d.words.vectors import ScatteredRows, WordVectors

LONGEST = 1000
"""Bytes of a word."""

USUAL = (1e-12, 1e6)
"""Between which the numbers of a vector lie, apart from 0. Text that is taken for numbers is mostly far from there, and
so are numbers that are read from a wrong byte on."""


def read(cursor: Cursor) -> WordVectors:
    """
    The format says that a space ends a word, and that none is in it; some tools write such words all the same.

    Args:
        cursor: at the file's start.

    Raises:
        UserError: with the byte, for a file that ends early or goes on after the last word.
    """
    count, dim = map(int, cursor.until(b"\n", "the header").removeprefix(BOM).split())
    if dim == 0:
        raise cursor.error("damaged: the header says vectors of 0 numbers")
    words, offsets = [], []
    for i in range(count):
        if cursor.data[cursor.position : cursor.position + 1] == b"\n":  # the original tool ends each vector so
            cursor.position += 1
        what = f"word {i} of {count}"
        start = cursor.position
        cursor.until(b" ", what)
        cursor.position = _end(cursor, start, dim)
        words.append(cursor.data[start : cursor.position - 1].decode("utf-8", "surrogateescape"))
        offsets.append(cursor.skip(4 * dim, what))
    if cursor.data[cursor.position :] not in (b"", b"\n"):
        raise cursor.error(f"more bytes follow the last of {count} words")
    return WordVectors(cursor.path, words, ScatteredRows(cursor.data, np.array(offsets, np.int64), dim), dim)


def _end(cursor: Cursor, start: int, dim: int) -> int:
    """Where the vector of the word begins that begins at ``start``: behind its first space, or behind a later one if
    all before that is text and what follows it is a better vector."""
    data, possible = cursor.data, [cursor.position]
    while True:
        last = possible[-1]
        space = data.find(b" ", last, start + LONGEST)
        if space < 0 or not _is_text(data[last:space]) or space + 1 + 4 * dim > len(data):
            break
        possible.append(space + 1)
    if len(possible) == 1:  # of nearly all words
        return cursor.position
    return max(possible, key=lambda begin: _likelihood(cursor, begin, dim))  # of equals the first


def _likelihood(cursor: Cursor, begin: int, dim: int) -> tuple[int, bool]:
    """How many numbers of the vector that would begin there are usual, and whether a word follows it."""
    numbers = np.abs(np.frombuffer(cursor.data, "<f4", dim, begin))
    usual = int(((numbers == 0) | ((numbers > USUAL[0]) & (numbers < USUAL[1]))).sum())
    end = begin + 4 * dim
    word = cursor.data[end : end + LONGEST].removeprefix(b"\n").partition(b" ")[0]
    return usual, end >= len(cursor.data) - 1 or _is_text(word)


def _is_text(content: bytes) -> bool:
    try:
        return content.decode().isprintable() and content != b""
    except UnicodeDecodeError:
        return False

"""word2vec's binary format: a header line, then each word, a space and its float32 numbers."""

from __future__ import annotations

import numpy as np

from cube3d.words.files import Cursor
from cube3d.words.vectors import ScatteredRows, WordVectors


def read(cursor: Cursor) -> WordVectors:
    """
    Args:
        cursor: at the file's start.

    Raises:
        UserError: with the byte, for a file that ends early or goes on after the last word.
    """
    count, dim = map(int, cursor.until(b"\n", "the header").split())
    if dim == 0:
        raise cursor.error("damaged: the header says vectors of 0 numbers")
    words, offsets = [], []
    for i in range(count):
        if cursor.data[cursor.position : cursor.position + 1] == b"\n":  # the original tool ends each vector so
            cursor.position += 1
        what = f"word {i} of {count}"
        words.append(cursor.until(b" ", what).decode("utf-8", "surrogateescape"))
        offsets.append(cursor.skip(4 * dim, what))
    if cursor.data[cursor.position :] not in (b"", b"\n"):
        raise cursor.error(f"more bytes follow the last of {count} words")
    return WordVectors(cursor.path, words, ScatteredRows(cursor.data, np.array(offsets, np.int64), dim), dim)

"""Which reader a file of word vectors needs."""

from __future__ import annotations

import re
from pathlib import Path

from cube3d.words import fasttext, text, word2vec
from cube3d.words.files import BOM, Cursor
from cube3d.words.vectors import WordVectors

HEADER = re.compile(rb"(?:%b)?[ \t]*(\d+)[ \t]+(\d+)[ \t\r]*\n" % BOM)
"""How many words, and how wide: the first line of all that word2vec writes, and of fastText's ``.vec``."""

LONGEST_HEADER = 64


def read_word_vectors(path: Path) -> WordVectors:
    """Words and vectors of a file.

    A name that ends in ``.bin`` says binary, any other text; what the file begins with says the rest:

    - text with the header line "words dim": word2vec text, fastText ``.vec``;
    - text without it: GloVe (a first word that is a number with a vector of one whole number reads as a header);
    - in text, a byte order mark, spaces before a word and tabs in place of spaces say nothing;
    - ``.bin`` with the header line: word2vec binary, mapped into memory;
      (a word with a space in it is told from its vector by what the numbers would be);
    - other ``.bin``: fastText's model, with subwords, mapped into memory.

    Raises:
        UserError: the file cannot be read, is cut or damaged (with the line or the byte), or a word is there twice.
    """
    cursor = Cursor(path)
    header = HEADER.match(cursor.data[:LONGEST_HEADER])
    if path.suffix != ".bin":
        return text.read(path, header is not None)
    return fasttext.read(cursor) if header is None else word2vec.read(cursor)

"""Text to token numbers: a teacher's tokenizer, or one trained on the texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from cube3d.errors import UserError
from cube3d.files import save_text
from cube3d.teachers import Teacher
from cube3d.teachers.transformer import TransformerTeacher

FILE = "tokenizer.json"

UNKNOWN, PREFIX = "[UNK]", "##"
"""In a trained tokenizer: what it does not know, and what stands before a part that does not begin a word."""


class TextTokenizer:
    """A tokenizer of the ``tokenizers`` library, without the marks that a transformer wants around a text.

    Args:
        tokenizer: the library's own.
        max_length: tokens of a text that are read; the rest is cut off.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer, self.max_length = tokenizer, max_length

    def __len__(self) -> int:
        """How many token numbers there are, from 0."""
        numbers = self._tokenizer.get_vocab(with_added_tokens=True).values()
        return max(numbers) + 1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token numbers of each text, at most ``max_length``; none for a text without letters or marks."""
        return [tokens[: self.max_length] for tokens in self.tokens(texts)]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """All token numbers of each text, those beyond ``max_length`` too."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [text.ids for text in encoded]

    @cached_property
    def unknown(self) -> int | None:
        """The number of what the tokenizer does not know; None for one that knows every text."""
        number = self._model.get("unk_id")  # a Unigram model has the number, others the token
        token = self._model.get("unk_token")
        return self._tokenizer.token_to_id(token) if token is not None else number

    def texts(self) -> list[str]:
        """What each token number stands for, as a text of its own; "" for what is none: marks for a model, a number
        without a token, white space, some of the bytes of a letter."""
        empty = {n for n, token in self._tokenizer.get_added_tokens_decoder().items() if token.special} | {self.unknown}
        prefix = self._model.get("continuing_subword_prefix") or ""
        found = []
        for number in range(len(self)):
            text = "" if number in empty else self._tokenizer.decode([number]).removeprefix(prefix).strip()
            found.append(text if text.isprintable() and "\ufffd" not in text else "")
        return found

    @cached_property
    def _model(self) -> dict[str, Any]:
        """The settings of the library's model, which its classes do not all show."""
        settings: dict[str, Any] = json.loads(self._tokenizer.to_str())["model"]
        return {name: value for name, value in settings.items() if name not in ("vocab", "merges")}

    def save(self, folder: Path) -> None:
        save_text(folder / FILE, self._tokenizer.to_str(pretty=True))


def load_tokenizer(folder: Path, max_length: int) -> TextTokenizer:
    """What :meth:`TextTokenizer.save` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / FILE
    try:
        return TextTokenizer(Tokenizer.from_file(str(path)), max_length)
    except Exception as error:  # tokenizers raises Exception itself
        raise UserError(f"{path}: no tokenizer can be read from it: {error}") from error


def teacher_tokenizer(teacher: Teacher, max_length: int) -> TextTokenizer:
    """The tokenizer of a transformer.

    Raises:
        UserError: the teacher has none, or one that is not of the ``tokenizers`` library.
    """
    if not isinstance(teacher, TransformerTeacher):
        raise UserError(f"teacher {teacher}: has no tokenizer; set reader.tokenizer=trained")
    _, tokenizer = teacher.load()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(
            f"teacher {teacher}: its tokenizer is not of the tokenizers library; set reader.tokenizer=trained"
        )
    return TextTokenizer(Tokenizer.from_str(backend.to_str()), max_length)  # a copy: the teacher's own pads and cuts


def trained_tokenizer(texts: Sequence[str], vocabulary: int, max_length: int) -> TextTokenizer:
    """WordPiece on lower-cased words without accents, as BERT's uncased models have, learned from the texts. The same
    for the same texts.

    Args:
        texts: to learn from.
        vocabulary: entries at most; the rarest letters are unknown to it where the texts have very many.
        max_length: see :class:`TextTokenizer`.
    """
    # The library numbers letters within words in the order of a hash that differs from process to process, and breaks
    # ties by the numbers. So they are given to it as tokens that are there before.
    letters = _letters(texts)[: vocabulary // 4]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        limit_alphabet=len(letters),
        initial_alphabet=letters,
        special_tokens=[UNKNOWN, *(f"{PREFIX}{letter}" for letter in letters)],
        show_progress=False,
    )
    tokenizer = _word_piece({})
    tokenizer.train_from_iterator(texts, trainer)
    return TextTokenizer(_word_piece(tokenizer.get_vocab()), max_length)


def _word_piece(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(PREFIX)
    return tokenizer


def _letters(texts: Sequence[str]) -> list[str]:
    """What the tokenizer's words are written with, the most frequent first."""
    written: Counter[str] = Counter()
    for text in texts:
        written.update(text)
    normalizer = normalizers.BertNormalizer(lowercase=True)
    counts: Counter[str] = Counter()
    for character, count in written.items():
        for letter in normalizer.normalize_str(character).strip():
            counts[letter] += count
    return sorted(counts, key=lambda letter: (-counts[letter], letter))

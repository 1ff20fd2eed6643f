"""The texts of a distillation with the teachers' vectors, on disk, so that any number takes little memory.

::

    tokens.npy    the token numbers of all texts, one after the other, int32
    ends.npy      where each text ends, int64
    targets.npy   the teachers' vectors, float16
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cube3d.errors import UserError
from cube3d.files import replacing
from cube3d.progress import progress
from cube3d.reader.tokenizer import TextTokenizer
from cube3d.teachers import Ensemble

NAMES = ("tokens", "ends", "targets")

CHUNK = 512
"""Texts that are tokenized and embedded at a time."""

COUNTED = 1 << 20
"""Tokens that are counted at a time."""


class Corpus(Dataset[dict[str, Tensor]]):
    """What :func:`write_corpus` wrote, mapped into memory: token numbers ``[L]``, int64, and target ``[dim]``, float32,
    of each text.

    Raises:
        UserError: the folder is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._tokens, self._ends, self._targets = (
                np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in NAMES
            )
        except (OSError, EOFError, ValueError) as error:
            raise UserError(f"{folder}: no corpus can be read from it: {error}") from error
        if not 0 < len(self._ends) == len(self._targets) or self._ends[-1] != len(self._tokens):
            raise UserError(f"{folder}: {', '.join(NAMES)} are not of one corpus")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        start = self._ends[index - 1] if index else 0
        return {
            "input_ids": torch.from_numpy(self._tokens[start : self._ends[index]].astype(np.int64)),
            "target": torch.from_numpy(self._targets[index].astype(np.float32)),
        }

    def counts(self, vocabulary: int) -> Tensor:
        """How often each token is in the texts, ``[vocabulary]``, int64."""
        found = np.zeros(vocabulary, np.int64)
        for start in range(0, len(self._tokens), COUNTED):
            found += np.bincount(self._tokens[start : start + COUNTED], minlength=vocabulary)
        return torch.from_numpy(found)


def write_corpus(folder: Path, texts: Sequence[str], tokenizer: TextTokenizer, ensemble: Ensemble) -> int:
    """Tokenizes and embeds the texts into a folder, whole or not at all. Vectors that the teachers' cache has are not
    computed again, so that a killed run loses little. Texts are left out of which the tokenizer knows no token, or for
    which a teacher has no vector.

    Returns:
        How many texts were longer than the tokenizer reads, and cut.

    Raises:
        UserError: fewer than two texts are left.
    """
    kept: list[str] = []
    rows: list[NDArray[np.int32]] = []
    cut = 0
    for start in range(0, len(texts), CHUNK):
        readable = ensemble.readable(texts[start : start + CHUNK])
        for text, tokens in zip(readable, tokenizer.tokens(readable), strict=True):
            if any(token != tokenizer.unknown for token in tokens[: tokenizer.max_length]):
                kept.append(text)
                rows.append(np.array(tokens[: tokenizer.max_length], np.int32))
                cut += len(tokens) > tokenizer.max_length
    if len(kept) < 2:
        raise UserError(
            f"{len(kept)} of {len(texts)} texts can be read by the tokenizer and the teachers; a distillation needs at "
            "least 2, and better many thousands"
        )
    with replacing(folder) as temporary:
        temporary.mkdir()
        np.save(temporary / "tokens.npy", np.concatenate(rows))
        np.save(temporary / "ends.npy", np.cumsum([len(row) for row in rows]))
        del rows
        chunks = [kept[start : start + CHUNK] for start in range(0, len(kept), CHUNK)]
        shape = (len(kept), ensemble.answers(kept[:1]).shape[1])
        targets = open_memmap(temporary / "targets.npy", mode="w+", dtype=np.float16, shape=shape)
        for i, chunk in enumerate(progress(chunks, "teacher vectors", len(kept))):
            targets[i * CHUNK : i * CHUNK + len(chunk)] = ensemble.answers(chunk).numpy()
        targets.flush()
    return cut

"""``cube3d embed``: any number of texts to the vectors that a run searches answers with, in little memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import torch.nn.functional as F
from numpy.lib import format as npy
from torch import Tensor

from cube3d.errors import UserError
from cube3d.files import replacing
from cube3d.progress import Progress
from cube3d.reader.model import ReaderModel
from cube3d.run import Run
from cube3d.strict import parse_json

CHUNK = 2048
"""Texts that are embedded at a time."""

SUFFIXES = (".npy", ".jsonl")


@dataclass(frozen=True)
class Line:
    """A text and where it stands, ``file:line``."""

    text: str
    place: str


class Sink(Protocol):
    """Takes the vectors as they come."""

    def add(self, texts: list[str], vectors: Tensor) -> None:
        """Texts with their vectors ``[len(texts), dim]``."""


class JSONLines:
    """An object a text, with ``text`` and ``vector``."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, texts: list[str], vectors: Tensor) -> None:
        for text, vector in zip(texts, vectors.tolist(), strict=True):
            record = json.dumps({"text": text, "vector": vector}, ensure_ascii=False)
            self._file.write(record.encode() + b"\n")
        self._file.flush()


class NumpyFile:
    """One array ``[texts, dim]``, float32, whose length is written when all texts are there."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._count, self._dim = file, 0, 0

    def add(self, texts: list[str], vectors: Tensor) -> None:
        if not self._count:
            self._dim = vectors.shape[1]
            self._write_header()
        self._file.write(vectors.numpy().astype("<f4").tobytes())
        self._count += len(texts)

    def close(self) -> None:
        """Puts the number of texts into the header, which has room for it."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        about = {"descr": "<f4", "fortran_order": False, "shape": (self._count, self._dim)}
        npy.write_array_header_1_0(self._file, about)


def embed(run: Run, source: Path | None, out: Path | None) -> int:
    """Embeds every line of a file.

    Args:
        run: trained. A reader needs no teacher for it; a mapping embeds through its teachers.
        source: texts, one a line, or of JSON with ``text`` if its name ends on ``.jsonl``; None: the standard input.
        out: ``.npy`` or ``.jsonl``, written whole or not at all; None: JSONL on the standard output.

    Returns:
        How many texts a reader cut to the length it reads.

    Raises:
        UserError: a run that is not trained, a file that cannot be read, another kind of ``out``; no text at all; with
            the line, a text that is blank, or not UTF-8; with their lines, the texts of which nothing is known.
    """
    if out is not None and out.suffix not in SUFFIXES:
        raise UserError(f"{out}: vectors are written as {' or '.join(SUFFIXES)}")
    embedder = Embedder(run)
    with _opened(source) as (lines, total), _sink(out) as sink, closing(Progress("embedding", total)) as shown:
        for chunk in _chunks(lines):
            sink.add([line.text for line in chunk], embedder(chunk))
            shown.advance(len(chunk))
    return embedder.cut


class Embedder:
    """Lines to unit vectors ``[len(lines), dim]``, float32.

    Attributes:
        cut: how many of them a reader cut.
    """

    def __init__(self, run: Run) -> None:
        self._run, self.cut = run, 0

    def __call__(self, lines: list[Line]) -> Tensor:
        texts = [line.text for line in lines]
        try:
            vectors = self._vectors(texts)
        except UserError:
            found = []
            for line in lines:  # which ones it were
                try:
                    self._run.ask([line.text])
                except UserError as error:
                    found.append(f"{line.place}: {error}")
            if found:
                raise UserError("\n".join(found)) from None
            raise
        return F.normalize(vectors, dim=-1)

    def _vectors(self, texts: list[str]) -> Tensor:
        model = self._run.model
        if not isinstance(model, ReaderModel):
            return self._run.ask(texts)
        found = model.encode(texts)
        limit = model.tokenizer.max_length
        full = [text for text, tokens in zip(texts, found, strict=True) if len(tokens) == limit]
        self.cut += sum(len(tokens) > limit for tokens in model.tokenizer.tokens(full))
        return model.embed_tokens(found)


@contextmanager
def _opened(source: Path | None) -> Iterator[tuple[Iterator[Line], int | None]]:
    """The lines, and how many there are where that can be known."""
    if source is None:
        yield _lines(sys.stdin.buffer, "standard input", of_json=False), None
        return
    try:
        file = source.open("rb")
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}") from error
    with file:
        total = None
        if file.seekable():
            total = sum(1 for _ in file)
            file.seek(0)
        yield _lines(file, str(source), of_json=source.suffix == ".jsonl"), total


def _lines(file: Iterable[bytes], name: str, of_json: bool) -> Iterator[Line]:
    number = 0
    for number, raw in enumerate(file, start=1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            text = parse_json(text, name, number)["text"].strip() if of_json else text
        except UnicodeDecodeError as error:
            raise UserError(f"{name}:{number}: the text is not UTF-8 (byte {error.start})") from error
        except (LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{name}:{number}: expected an object with a 'text', found {text[:60]!r}") from error
        if not text:
            raise UserError(f"{name}:{number}: the text is empty")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(f"{name}:{number}: the text holds half of a surrogate pair")
        yield Line(text, f"{name}:{number}")
    if not number:
        raise UserError(f"{name}: holds no text")


def _chunks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@contextmanager
def _sink(out: Path | None) -> Iterator[Sink]:
    if out is None:
        yield JSONLines(sys.stdout.buffer)
        return
    with replacing(out) as temporary, temporary.open("wb") as file:
        if out.suffix == ".jsonl":
            yield JSONLines(file)
            return
        array = NumpyFile(file)
        yield array
        array.close()

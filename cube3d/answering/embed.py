"""``cube3d embed``: any number of texts to the vectors that a run searches answers with, in little memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

import torch.nn.functional as F
from numpy.lib import format as npy
from torch import Tensor

from cube3d.errors import StorageError, UserError
from cube3d.files import load_json, locked, save_json
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
    """One array ``[texts, dim]``, float32, whose length is written when all texts are there.

    Args:
        file: at its end.
        count: texts that are in it already.
    """

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file, self._count, self._dim = file, count, 0

    def add(self, texts: list[str], vectors: Tensor) -> None:
        self._dim = vectors.shape[1]
        if not self._count:
            self._write_header()
        self._file.write(vectors.numpy().astype("<f4").tobytes())
        self._count += len(texts)

    def close(self) -> None:
        """Puts the number of texts into the header, which has room for it."""
        if not self._dim:  # nothing was added: all was there
            self._file.seek(0)
            npy.read_magic(self._file)
            (_, self._dim), _, _ = npy.read_array_header_1_0(self._file)
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        about = {"descr": "<f4", "fortran_order": False, "shape": (self._count, self._dim)}
        npy.write_array_header_1_0(self._file, about)


def embed(run: Run, source: Path | None, out: Path | None) -> int:
    """Embeds every line of a file. Killed while it writes ``out``, the same call goes on where it was.

    Args:
        run: trained. A reader needs no teacher for it; a mapping embeds through its teachers.
        source: texts, one a line, or of JSON with ``text`` if its name ends on ``.jsonl``; None: the standard input.
        out: ``.npy`` or ``.jsonl``, written whole or not at all; None: JSONL on the standard output.

    Returns:
        How many texts a reader cut to the length it reads.

    Raises:
        UserError: a run that is not trained, a file that cannot be read, another kind of ``out``; no text at all; with
            the line, a text that is blank, or not UTF-8; with their lines, the texts of which nothing is known.
        BusyError: another process writes ``out``.

    Example::

        embed(load(Path("runs/mine")), Path("texts.txt"), Path("vectors.npy"))
    """
    if out is not None and out.suffix not in SUFFIXES:
        raise UserError(f"{out}: vectors are written as {' or '.join(SUFFIXES)}")
    embedder = Embedder(run)
    with _opened(source) as texts, closing(Progress("embedding", texts.total)) as shown:
        if out is None:
            sink = JSONLines(sys.stdout.buffer)
            for chunk in _chunks(texts.lines):
                sink.add([line.text for line in chunk], embedder(chunk))
                shown.advance(len(chunk))
        else:
            _write(embedder, texts, out, shown)
    return embedder.cut


def _write(embedder: Embedder, texts: Texts, out: Path, shown: Progress) -> None:
    """Into a folder beside ``out`` first, where a note says how far it has come, and of what."""
    folder = out.with_name(f".{out.name}.embedding")
    vectors, note = folder / f"vectors{out.suffix}", folder / "done.json"
    with locked(folder):
        of = [texts.digest, embedder.run.fingerprint()]
        done = load_json(note) if texts.digest is not None and note.exists() and vectors.exists() else {}
        if done.get("of") != of:
            done = {"of": of, "texts": 0, "bytes": 0, "cut": 0}
        try:
            with vectors.open("r+b" if done["texts"] else "w+b") as file:
                file.truncate(done["bytes"])
                file.seek(0, os.SEEK_END)
                embedder.cut = done["cut"]
                shown.skip(done["texts"])
                sink = NumpyFile(file, done["texts"]) if out.suffix == ".npy" else JSONLines(file)
                for chunk in _chunks(texts.lines, done["texts"]):
                    sink.add([line.text for line in chunk], embedder(chunk))
                    file.flush()
                    done |= {"texts": done["texts"] + len(chunk), "bytes": file.tell(), "cut": embedder.cut}
                    save_json(note, done)
                    shown.advance(len(chunk))
                if isinstance(sink, NumpyFile):
                    sink.close()
            os.replace(vectors, out)
        except OSError as error:
            raise StorageError(f"{out}: could not be saved: {error}; nothing that was there has changed") from error
        except StorageError:  # with more room it goes on
            raise
        except UserError:  # of the texts, which will not be the same again
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


class Embedder:
    """Lines to unit vectors ``[len(lines), dim]``, float32.

    Attributes:
        run: trained.
        cut: how many of them a reader cut.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.cut = run, 0

    def __call__(self, lines: list[Line]) -> Tensor:
        texts = [line.text for line in lines]
        try:
            vectors = self._vectors(texts)
        except UserError:
            found = []
            for line in lines:  # which ones it were
                try:
                    self.run.ask([line.text])
                except UserError as error:
                    found.append(f"{line.place}: {error}")
            if found:
                raise UserError("\n".join(found)) from None
            raise
        return F.normalize(vectors, dim=-1)

    def _vectors(self, texts: list[str]) -> Tensor:
        model = self.run.model
        if not isinstance(model, ReaderModel):
            return self.run.ask(texts)
        found = model.encode(texts)
        limit = model.tokenizer.max_length
        full = [text for text, tokens in zip(texts, found, strict=True) if len(tokens) == limit]
        self.cut += sum(len(tokens) > limit for tokens in model.tokenizer.tokens(full))
        return model.embed_tokens(found)


@dataclass(frozen=True)
class Texts:
    """What is to be embedded.

    Attributes:
        lines: one after the other.
        total: how many they are, where that can be known.
        digest: of them all, where that can be known.
    """

    lines: Iterator[Line]
    total: int | None = None
    digest: str | None = None


@contextmanager
def _opened(source: Path | None) -> Iterator[Texts]:
    if source is None:
        yield Texts(_lines(sys.stdin.buffer, "standard input", of_json=False))
        return
    try:
        file = source.open("rb")
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}") from error
    with file:
        total = digest = None
        if file.seekable():
            total, digester = 0, hashlib.sha256()
            for line in file:
                total += 1
                digester.update(line)
            digest = digester.hexdigest()
            file.seek(0)
        yield Texts(_lines(file, str(source), of_json=source.suffix == ".jsonl"), total, digest)


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


def _chunks(lines: Iterator[Line], done: int = 0) -> Iterator[list[Line]]:
    """Of :data:`CHUNK` lines each, but for the last; without those that are done."""
    for _ in islice(lines, done):
        pass
    while chunk := list(islice(lines, CHUNK)):
        yield chunk

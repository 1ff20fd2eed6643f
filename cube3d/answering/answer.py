"""Answering: the bank's answers nearest to the cube's prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.errors import UserError
from cube3d.pairs import Pair, normalized, read_pairs
from cube3d.run import Run, load

MATRIX_LIMIT = 100_000
"""Answers that one matrix product searches; more are searched by faiss, which never holds all scores at once."""


@dataclass(frozen=True)
class Answer:
    """An answer of the bank, its cosine with the prediction, and where it stands, ``file:line``."""

    score: float
    text: str
    source: str


class Search(Protocol):
    """Exact search among unit vectors by cosine."""

    name: str

    def best(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores and rows of the ``count`` nearest to each of the unit vectors ``[N, dim]``, best first,
        ``[N, count]``."""


class MatrixSearch:
    """One product with all vectors."""

    name = "matrix product"

    def __init__(self, vectors: Tensor) -> None:
        self._vectors = vectors

    def best(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        found = [(batch @ self._vectors.T).topk(count) for batch in queries.split(256)]
        return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


class FaissSearch:
    """``faiss.IndexFlatIP``.

    Raises:
        UserError: faiss is not installed.
    """

    name = "faiss"

    def __init__(self, vectors: Tensor) -> None:
        try:
            import faiss
        except ImportError as error:
            raise UserError(
                f"{len(vectors)} answers: more than {MATRIX_LIMIT} are searched by faiss, which is not installed; "
                "`pip install cube-kernels[faiss]`"
            ) from error
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors.numpy())

    def best(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        scores, rows = self._index.search(queries.numpy(), count)
        return torch.from_numpy(scores), torch.from_numpy(rows)


class Reader:
    """A trained run and a bank of answers, loaded once for any number of questions.

    Args:
        run: trained, or its folder.
        bank: a file of pairs whose answers to choose from; None: the run's own.

    Raises:
        UserError: a run that is not trained, a bank that cannot be read, or is large where faiss is missing.

    Example::

        reader = Reader("runs/mine")
        best, second = reader.answer(["how do I undo the last commit?"], count=2)[0]
        print(best.score, best.text)
    """

    def __init__(self, run: Run | str | Path, bank: str | Path | None = None) -> None:
        run = run if isinstance(run, Run) else load(run)
        self._run = run
        run.model  # noqa: B018  # what is wrong with it shows before the bank is embedded
        self._pairs = _with_distinct_answers(run.pairs if bank is None else read_pairs([str(bank)]))
        texts = [pair.answer for pair in self._pairs]
        if bank is None:
            known = run.answers()
            vectors = torch.stack([known[text] for text in texts])
        else:
            vectors = run.ensemble.answers(texts)
        self.search: Search = MatrixSearch(vectors) if len(vectors) <= MATRIX_LIMIT else FaissSearch(vectors)

    def __len__(self) -> int:
        """How many answers there are to choose from."""
        return len(self._pairs)

    def embed(self, questions: Sequence[str]) -> Tensor:
        """The unit vectors that answers are searched with, ``[N, dim]``, float32, on the CPU.

        Raises:
            UserError: a question that is empty, no Unicode text, or of which nothing is known.
        """
        for question in questions:
            check_question(question)
        return F.normalize(self._run.ask(questions), dim=-1)

    def answer(self, questions: Sequence[str], count: int = 1) -> list[list[Answer]]:
        """The ``count`` answers nearest to what the model predicts for each question, best first; all, where the bank
        has fewer.

        Raises:
            UserError: see :meth:`embed`.
        """
        scores, rows = self.search.best(self.embed(questions), min(count, len(self)))
        return [
            [Answer(score, self._pairs[row].answer, self._pairs[row].source) for score, row in zip(*best, strict=True)]
            for best in zip(scores.tolist(), rows.tolist(), strict=True)
        ]


def _with_distinct_answers(pairs: Sequence[Pair]) -> list[Pair]:
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(normalized(pair.answer), pair)
    return list(first.values())


def check_question(question: str) -> None:
    """Raises UserError for a question that is empty or no Unicode text."""
    if not question.strip():
        raise UserError("the question is empty")
    try:
        question.encode()
    except UnicodeEncodeError as error:  # a command line that is not UTF-8 arrives as lone surrogates
        raise UserError(f"the question is not UTF-8 text (character {error.start})") from error


def read_questions(path: Path) -> list[str]:
    """A question a line.

    Raises:
        UserError: the file cannot be read or holds no question; with the line, for one that is blank or not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    questions = []
    for line, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            questions.append(decoded(raw))
        except UserError as error:
            raise UserError(f"{path}:{line}: {error}") from error
    if not questions:
        raise UserError(f"{path}: holds no questions")
    return questions


def decoded(raw: bytes) -> str:
    """A question as it came from a file or a terminal.

    Raises:
        UserError: it is blank, or not UTF-8.
    """
    question = raw.decode("utf-8", "surrogateescape").strip()
    check_question(question)
    return question

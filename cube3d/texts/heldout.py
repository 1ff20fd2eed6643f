"""Texts that say what is held out are kept out of distillation."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from cube3d.pairs import normalized

RUN = 8
"""Words in a row that two texts must share to count as the same; all of a shorter held-out text."""

WHOLE = 3
"""A held-out text of fewer words, such as "Yes", is said only by a text of the same words and no others."""

_WORD = re.compile(r"\w+")


class HeldOut:
    """Questions and answers that no training text may repeat.

    A text repeats a held-out one if both have the same :data:`RUN` words in a row, whatever the marks and letter case
    between; of a held-out text with fewer words, all of them. (Brown et al., 2020, "Language Models are Few-Shot
    Learners", appendix C, drop what shares 13 words.)

    Args:
        texts: the held-out questions and answers.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._whole: set[str] = set()
        runs: dict[str, list[str]] = {}
        for text in texts:
            words = _words(text)
            if len(words) < WHOLE:
                self._whole.add(_line(words))
                continue
            length = min(RUN, len(words))
            for start in range(len(words) - length + 1):
                run = words[start : start + length]
                runs[_line(run)] = run
        # A run is looked for only in texts that have the rarest of its words, and then as a part of the text.
        self._by_word: dict[str, list[str]] = defaultdict(list)
        often = Counter(word for run in runs.values() for word in run)
        for line, run in runs.items():
            self._by_word[min(run, key=often.__getitem__)].append(line)

    def repeated_by(self, text: str) -> bool:
        """Whether a text repeats a held-out one."""
        words = _words(text)
        line = _line(words)
        if line in self._whole:
            return True
        return any(run in line for word in self._by_word.keys() & words for run in self._by_word[word])


def _words(text: str) -> list[str]:
    return _WORD.findall(normalized(text))


def _line(words: list[str]) -> str:
    """With spaces at its ends, so that a run of words is found at words."""
    return f" {' '.join(words)} "

"""Questions that give their answer's subject away, and the others: they are measured apart."""

from __future__ import annotations

import re

from cube3d.pairs import normalized

_HEADWORD = re.compile(
    r"what(?:'s| is| are| was| were) [^?]+"
    r"|what (?:does|do|did) [^?]+ (?:do|mean|stand for)(?: in [^?]+)?"
    r"|(?:define|explain) [^?]+"
)

ALL, HEADWORD, OTHER = "all", "headword", "other"
"""Every question; those that ask only what something is, means or does; and the rest."""


def is_headword_question(question: str) -> bool:
    """Whether the question asks only what something is, means or does.

    The answer then defines the question's own words, so that a teacher without any model finds it by them; tables
    of terms and of docstrings are made of such pairs. By the text alone, in one sentence and nothing around it:

    - ``What is|are|was|were X?``, ``What's X?``
    - ``What do|does|did X do|mean|stand for [in Y]?``
    - ``Define X``, ``Explain X``

    Letter case, white space and the marks at the end do not matter.
    """
    return _HEADWORD.fullmatch(normalized(question).replace("’", "'").rstrip(" ?!.…")) is not None

"""What a pair is worth: a score from 0 to 1, and the reason to drop it where there is one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field, model_validator

from cube3d.config import Section
from cube3d.pairs.pair import Pair, normalized


class QualitySettings(Section):
    """Bounds that a pair must keep. Those of texts hold for any script."""

    question_length: list[int] = Field([8, 1000], min_length=2, max_length=2)
    """Characters of a question, fewest and most."""
    answer_length: list[int] = Field([15, 4000], min_length=2, max_length=2)
    """Characters of an answer, fewest and most."""
    letters: float = Field(0.6, ge=0, le=1)
    """Least share of letters among the characters that are no spaces."""
    variety: float = Field(0.3, ge=0, le=1)
    """Least share of different words, in texts of 20 words and more."""
    near_duplicate: float = Field(0.9, gt=0, le=1)
    """Similarity of character 4-grams from which texts say the same; 1 finds equal texts only."""
    coherence: list[float] = Field([0.0, 0.95], min_length=2, max_length=2)
    """Cosine of question and answer in the first teacher: below they are unrelated, above the answer repeats the
    question."""
    agreement: float | None = Field(None, ge=-1, le=1)
    """Least agreement of the teachers about a pair; needs two of them."""

    @model_validator(mode="after")
    def _ordered(self) -> QualitySettings:
        for name in ("question_length", "answer_length", "coherence"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name} is [{low}, {high}]; the lower bound comes first")
        return self


@dataclass(frozen=True)
class Verdict:
    """What one check found: a score from 0 to 1, and why the pair is to be dropped ("" where it is not). Reasons are
    counted, so what is particular to the pair is the detail."""

    score: float
    reason: str = ""
    detail: str = ""


def judge_text(pair: Pair, settings: QualitySettings) -> Verdict:
    """What can be said without a teacher: lengths, and whether both sides are sane language."""
    if normalized(pair.question) == normalized(pair.answer):
        return Verdict(0, "the answer is the question")
    score = 1.0
    for side, text, bounds in (
        ("question", pair.question, settings.question_length),
        ("answer", pair.answer, settings.answer_length),
    ):
        for verdict in _judged(text, bounds, settings):
            if verdict.reason:
                return Verdict(0, f"{side} {verdict.reason}", verdict.detail)
            score *= verdict.score
    if pair.answer.endswith(":"):  # what it announces is missing
        score /= 2
    return Verdict(score)


def judge_coherence(cosine: float, settings: QualitySettings) -> Verdict:
    """Whether question and answer belong together, by a teacher's cosine. The best lie in the middle half."""
    low, high = settings.coherence
    if cosine < low:
        return Verdict(0, f"unrelated: cosine below {low}", f"{cosine:.3f}")
    if cosine > high:
        return Verdict(0, f"the answer repeats the question: cosine above {high}", f"{cosine:.3f}")
    margin = (high - low) / 4
    return Verdict(min(1.0, (cosine - low) / margin, (high - cosine) / margin))


def judge_agreement(agreement: float, settings: QualitySettings) -> Verdict:
    """Whether the teachers see the pair alike."""
    assert settings.agreement is not None
    if agreement < settings.agreement:
        return Verdict(0, f"the teachers disagree: agreement below {settings.agreement}", f"{agreement:.3f}")
    return Verdict(1)


def _judged(text: str, bounds: list[int], settings: QualitySettings) -> Iterator[Verdict]:
    yield _length(text, bounds)
    yield _sanity(text, settings)


def _length(text: str, bounds: list[int]) -> Verdict:
    """Full marks from three times the shortest to half of the longest."""
    low, high = bounds
    if len(text) < low:
        return Verdict(0, f"shorter than {low} characters", str(len(text)))
    if len(text) > high:
        return Verdict(0, f"longer than {high} characters", str(len(text)))
    return Verdict(min(1.0, len(text) / (3 * low), (high - len(text) + 1) / (high / 2)))


def _sanity(text: str, settings: QualitySettings) -> Verdict:
    if any(unicodedata.category(c) in ("Cc", "Co", "Cn") and c not in "\n\t\r" for c in text) or "\ufffd" in text:
        return Verdict(0, "holds characters that are no text")
    if _misread(text):
        return Verdict(0, "was decoded wrongly: its letters are UTF-8 read as another encoding")
    characters = [c for c in text if not c.isspace()]
    letters = sum(unicodedata.category(c)[0] in "LM" for c in characters) / max(1, len(characters))
    if letters < settings.letters:
        return Verdict(0, f"is not prose: fewer letters than {settings.letters:.0%}", f"{letters:.0%}")
    words = re.findall(r"\w+", normalized(text))
    variety = len(set(words)) / len(words) if len(words) >= 20 else 1.0
    if variety < settings.variety:
        return Verdict(0, f"repeats itself: fewer different words than {settings.variety:.0%}", f"{variety:.0%}")
    return Verdict(min(1.0, letters / 0.75))


def _misread(text: str) -> bool:
    """UTF-8 that was read as Windows-1252, such as "donâ€™t": the bytes of other text are no UTF-8."""
    if text.isascii():
        return False
    try:
        return text.encode("cp1252").decode("utf-8") != text
    except UnicodeError:
        return False

"""The benchmark of readers takes turns, lets nobody wait for a slow one, and times nobody with other numbers."""

import time

import numpy as np
import pytest

from benchmarks import reading
from benchmarks.reading import Contender, Row, measure, prepared, table


def lengths(texts):
    return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


def test_contenders_take_turns_over_all_questions_and_slow_ones_read_a_part(monkeypatch):
    monkeypatch.setattr(reading, "BATCH", 4)
    monkeypatch.setattr(reading, "ROUNDS", 2)
    monkeypatch.setattr(reading, "QUESTIONS_A_ROUND", 3)
    monkeypatch.setattr(reading, "SECONDS_A_ROUND", 0.1)
    calls = []

    def fast(texts):
        calls.append(("fast", len(texts)))

    def slow(texts):
        calls.append(("slow", len(texts)))
        time.sleep(0.02 * len(texts))

    questions = ["a", "b", "c", "d"]
    rows = measure({"fast": Contender(fast, 10**6), "slow": Contender(slow, 2 * 10**6)}, questions, 20)
    assert rows[0].texts == 20
    assert 4 <= rows[1].texts < 8
    assert [len(row.milliseconds) for row in rows] == [6, 6]
    assert [len(row.rates) for row in rows] == [2, 2]
    assert 20 <= np.median(rows[1].milliseconds) < 60
    turns = [name for name, count in calls[4:]]
    assert turns == 2 * (["fast"] * 4 + ["slow"] * 4 + ["fast", "slow"])


def test_a_contender_with_other_numbers_or_without_its_package_is_not_timed(monkeypatch):
    def missing(setting):
        raise ImportError("no such package")

    contenders = {
        "reader, torch": lambda setting: Contender(lengths, 1),
        "reader, onnxruntime": lambda setting: Contender(lambda texts: lengths(texts) + 1e-3, 1),
        "model2vec of the teacher": missing,
    }
    monkeypatch.setattr(reading, "CONTENDERS", contenders)
    found, refused = prepared(None, ["a", "bcd"])
    assert list(found) == ["reader, torch"]
    assert refused["reader, onnxruntime"] == "REFUSED, other numbers: off by 1.0e-03"
    assert refused["model2vec of the teacher"] == "ImportError: no such package"


@pytest.mark.parametrize("count", [1, 3, 10])
def test_batches_of_like_length_give_every_text_its_own_vector(count, monkeypatch):
    monkeypatch.setattr(reading, "BATCH", 4)
    texts = ["x" * (7 * i % 10) for i in range(count)]
    assert (reading._batches(lengths)(texts) == lengths(texts)).all()


def test_the_table_has_medians_and_reasons():
    row = Row("ours", 48.0, 2000, [3.0, 1.0, 2.0], [10.0, 30.0, 2000.0])
    lines = table([row], {"theirs": "not installed"}).splitlines()
    assert lines[2] == "| ours | 2.000 | 30 | 2,000 | 48.0 |"
    assert lines[3] == "| theirs | not installed | | | |"


def test_every_pair_of_one_model_is_compared():
    assert set(reading.SAME) | set(reading.SAME.values()) <= set(reading.CONTENDERS)
    order = list(reading.CONTENDERS)
    assert all(order.index(other) < order.index(name) for name, other in reading.SAME.items())

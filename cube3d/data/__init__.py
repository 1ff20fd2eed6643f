"""Pairs of questions and answers: readers, answer groups, splits."""

from cube3d.data.pairs import Pair, Split, answer_groups, normalized, split_by_group
from cube3d.data.readers import BUNDLED, read_pairs

__all__ = ["BUNDLED", "Pair", "Split", "answer_groups", "normalized", "read_pairs", "split_by_group"]

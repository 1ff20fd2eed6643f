"""Pairs of questions and answers: what one is, its readers, answer groups and splits."""

from cube3d.pairs.pair import Pair, Split, answer_groups, normalized, split_by_group
from cube3d.pairs.readers import BUNDLED, CONTEXT_TURNS, make_pairs, read_pairs

__all__ = [
    "BUNDLED",
    "CONTEXT_TURNS",
    "Pair",
    "Split",
    "answer_groups",
    "make_pairs",
    "normalized",
    "read_pairs",
    "split_by_group",
]

"""How sure a mean over questions is: intervals and a paired test, over answer groups and seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cube3d.metrics import Floats

RESAMPLES = 5000


@dataclass(frozen=True)
class Estimate:
    """A mean over questions with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Estimate):
    """The mean of paired differences with its 95 % interval, and the two-sided ``p`` of there being none."""

    p: float


class Bootstrap:
    """Resamples of the answer groups and of the runs, the same for every metric and method, so that differences
    are paired.

    The pigeonhole bootstrap (Owen, 2007): groups and runs are drawn with replacement, each apart from the other,
    and a question counts as often as its group was drawn times its run was drawn. So a question that several
    seeds hold out is not taken for several questions, and what a seed's split and start have in common is not
    taken for evidence. With one run it is the bootstrap over groups. Intervals are percentiles of the resampled
    means (Efron and Tibshirani, 1993, ch. 13), and ``p`` inverts them (ch. 15.4): it is below 0.05 where the
    95 % interval excludes zero, but for one resample. Resamples that hold no question, as happens with a few
    groups, are left out.

    Args:
        group: answer group of each question, ``[N]``, numbers or text.
        run: the run that held it out, ``[N]``.
        seed: of the draws.
    """

    def __init__(self, group: ArrayLike, run: ArrayLike, seed: int) -> None:
        self._group, groups = _numbered(group)
        self._run, runs = _numbered(run)
        self._shape = (groups, runs)
        generator = np.random.default_rng(seed)
        self._group_draws, self._run_draws = (
            generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float) for n in self._shape
        )
        self._weights = self._resampled_sums(np.ones(len(self._group)))

    def estimate(self, values: Floats) -> Estimate:
        """Mean and interval of one value a question, ``[N]``."""
        low, high = np.quantile(self._resampled_means(values), [0.025, 0.975])
        return Estimate(float(values.mean()), float(low), float(high))

    def difference(self, values: Floats) -> Difference:
        """The same for differences, ``[N]``, with the test of their mean being zero."""
        means = self._resampled_means(values)
        estimate = self.estimate(values)
        beyond = min((means <= 0).sum(), (means >= 0).sum())
        p = min(1.0, 2 * (1 + float(beyond)) / (1 + len(means)))
        return Difference(estimate.mean, estimate.low, estimate.high, p)

    def _resampled_means(self, values: Floats) -> Floats:
        filled = self._weights > 0
        means: Floats = self._resampled_sums(values)[filled] / self._weights[filled]
        return means

    def _resampled_sums(self, values: Floats) -> Floats:
        cells = np.zeros(self._shape)
        np.add.at(cells, (self._group, self._run), values)
        sums: Floats = ((self._group_draws @ cells) * self._run_draws).sum(axis=1)
        return sums


def _numbered(labels: ArrayLike) -> tuple[NDArray[np.int64], int]:
    unique, index = np.unique(labels, return_inverse=True)
    return index, len(unique)

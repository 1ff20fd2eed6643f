"""What each teacher gives alone, and how far teachers agree, on the held-out part."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from typing import Any

from cube3d.evaluation.intervals import Bootstrap
from cube3d.metrics import METRICS, per_question
from cube3d.run import Run
from cube3d.teachers import agreement
from cube3d.vectors import embed_parts


def teacher_results(run: Run) -> dict[str, Any]:
    """Each teacher of the run, aligned as in the ensemble, with no model after it.

    Returns:
        ``{"members": [{"name", "dim", "whitened", "weight", metric: {mean, low, high}}], "weights": [{"batch",
        "weights"}], "agreement": [{"between": [i, j], "similarity", "top_1"}]}``, JSON-ready: the last weights are
        those in force, and i and j are positions among the members.
    """
    ensemble = run.ensemble
    parts = [embed_parts(run.pairs, run.groups, run.split, ensemble.alone(k)) for k, _ in enumerate(ensemble.members)]
    members = []
    for member, weight, part in zip(ensemble.members, ensemble.fusion.weights.tolist(), parts, strict=True):
        values = per_question(part.test.question, part.test, part.train.answer.mean(0))
        bootstrap = Bootstrap(part.test.group, [run.settings.seed] * len(part.test), seed=0)
        about = {"name": member.name, "dim": part.test.question.shape[1], "whitened": member.whitened, "weight": weight}
        members.append(about | {metric: asdict(bootstrap.estimate(values[metric])) for metric in METRICS})
    tests = [(part.test.question, part.test.bank) for part in parts]
    agreements = [
        {"between": [i, j], **asdict(agreement(tests[i], tests[j]))} for i, j in combinations(range(len(tests)), 2)
    ]
    return {"members": members, "weights": [asdict(noted) for noted in ensemble.noted], "agreement": agreements}

"""The report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from importlib.metadata import version
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from cube3d.config import dump_settings
from cube3d.evaluate import IDENTITY, verdict
from cube3d.files import replacing, save_text
from cube3d.metrics import METRICS, ranks
from cube3d.report import pictures
from cube3d.run import Run


def write_report(run: Run) -> Path:
    """Writes ``report.html`` and ``pictures/`` from what training and evaluation saved.

    Raises:
        UserError: training or evaluation has not been done.
    """
    results, history, audit = (run.results(name) for name in ("metrics", "history", "audit"))
    validation, test = run.parts.validation, run.parts.test
    identity_mrr = (1 / ranks(validation.question, validation)).mean().item()
    question = test.pairs[0].question
    images = {
        "mrr": pictures.comparison(results["methods"], "mrr"),
        "curves": pictures.learning_curves(history, identity_mrr),
        "activity": pictures.activity(run.model.trajectory(test.question[:1])[:, 0]),
    }
    for name, data in images.items():
        with replacing(run.folder / "pictures" / f"{name}.png") as temporary:
            temporary.write_bytes(data)
    template = Environment(
        loader=PackageLoader("cube3d", "report"), autoescape=True, undefined=StrictUndefined
    ).get_template("report.html")
    parts = {name: (len(part), len(part.group.unique())) for name, part in vars(run.parts).items()}
    page = template.render(
        verdict=verdict(results),
        results=results,
        metrics=METRICS,
        identity=IDENTITY,
        audit=audit,
        parts=parts,
        settings=dump_settings(run.settings),
        parameters=sum(p.numel() for p in run.model.mapping.parameters()),
        question=question,
        images={name: base64.b64encode(data).decode() for name, data in images.items()},
        versions={"cube-kernels": version("cube-kernels"), "torch": torch.__version__},
    )
    save_text(run.report_file, page)
    return run.report_file

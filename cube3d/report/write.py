"""Writing a report in the format that its file's name asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cube3d.errors import UserError
from cube3d.evaluation.evaluate import load_evaluations, summarize
from cube3d.files import save_text
from cube3d.report.page import page
from cube3d.report.tables import markdown
from cube3d.run import Run

FORMATS: dict[str, Callable[[Sequence[Run]], str]] = {
    ".html": page,
    ".md": lambda runs: markdown(summarize(load_evaluations(runs))),
}


def write_report(runs: Sequence[Run], path: Path) -> Path:
    """Writes what training and evaluation saved, as a page (``.html``) or as tables (``.md``).

    Raises:
        UserError: an unknown format, a run that is not trained or evaluated, or runs that differ in more than
            the seed.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: unknown format {path.suffix!r}; valid: {', '.join(FORMATS)}")
    save_text(path, FORMATS[path.suffix](runs))
    return path

"""Trains a lattice to read questions and find their answers, taught by language models.

::

    import cube3d

    pairs = cube3d.read_pairs(["faq.csv"])  # or cube3d.make_pairs([("a question", "its answer"), ...])
    run = cube3d.fit("runs/mine", cube3d.load_settings(None, ["training.epochs=10"]), pairs)
    evaluation = cube3d.evaluate(run)  # the run's model and every baseline on what was held out
    reader = cube3d.Reader(run)  # later: cube3d.Reader("runs/mine")
    print(reader.answer(["how do I undo the last commit?"], count=3))

The command line does the same by the same functions. Names are imported when they are first used, since transformers
takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cube3d.answering.answer import Answer, Reader
    from cube3d.config import Settings, TeacherSettings, load_settings
    from cube3d.errors import BusyError, StorageError, UserError
    from cube3d.evaluation.evaluate import Evaluation, evaluate
    from cube3d.pairs import Pair, make_pairs, read_pairs
    from cube3d.run import Run, fit, load
    from cube3d.teachers import Teacher, open_teacher

_HOMES = {
    "cube3d.answering.answer": ("Answer", "Reader"),
    "cube3d.config": ("Settings", "TeacherSettings", "load_settings"),
    "cube3d.pairs": ("Pair", "make_pairs", "read_pairs"),
    "cube3d.errors": ("BusyError", "StorageError", "UserError"),
    "cube3d.evaluation.evaluate": ("Evaluation", "evaluate"),
    "cube3d.run": ("Run", "fit", "load"),
    "cube3d.teachers": ("Teacher", "open_teacher"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "BusyError",
    "Evaluation",
    "Pair",
    "Reader",
    "Run",
    "Settings",
    "StorageError",
    "Teacher",
    "TeacherSettings",
    "UserError",
    "evaluate",
    "fit",
    "load",
    "load_settings",
    "make_pairs",
    "open_teacher",
    "read_pairs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)

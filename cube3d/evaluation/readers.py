"""What stands beside every reader: its teachers, Model2Vec, and readers whose tokens see each other otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.config import ReaderSettings, Settings
from cube3d.evaluation.baselines import parameter_count
from cube3d.evaluation.methods import Method
from cube3d.evaluation.model2vec import static_method, static_model, static_table
from cube3d.model import CubeModel, load_model
from cube3d.reader.model import ReaderModel
from cube3d.reader.train import Material, distilled_reader, new_reader, tuned_reader
from cube3d.run import Run, new_cube
from cube3d.teachers.transformer import TransformerTeacher
from cube3d.training.mixture import mix
from cube3d.training.ridge import ridge
from cube3d.training.trainer import fit
from cube3d.vectors import Part

MAPPING = "mapping cube"

DISTILLED = "{} (distilled)"
"""Name of a reader's row before it is tuned on pairs."""


def reader_methods(run: Run, say: Callable[[str], None]) -> dict[str, Method]:
    """The run's reader and everything beside it, in the order of the tables.

    - ``teacher``: the teachers' own vector of the question.
    - ``both sides``: the reader's own vectors of the answers, too.
    - ``float16``, ``int8``: its table in fewer bits.
    - ``lattice off``, ``bag``, ``transformer layer``, ``convolutions``: see :func:`variants`; each distilled, and
      tuned.
    - ``Model2Vec``: of the first teacher, both sides; and a bag that starts from it, distilled on the same texts.
    - ``mapping cube``: reads no text; it carries the teachers' vector of the question to the answer's.

    Args:
        run: of a reader, trained.
        say: gets a line for each that is trained.
    """
    model = run.model
    assert isinstance(model, ReaderModel)
    distilled = load_model(ReaderModel, run.distilled_folder).to(model.device)
    methods = {
        "reader": _method(model),
        "teacher": Method(lambda part: part.question, 0, _teacher_size(run), _teacher_reads(run)),
        DISTILLED.format("reader"): _method(distilled),
        "reader (both sides)": _both_sides(model),
        "reader (float16)": _method(model.stored("float16").to(model.device)),
        "reader (int8)": _method(model.stored("int8").to(model.device)),
    }
    material = run.prepare_material()
    for name, settings in variants(run.settings.reader, model).items():
        methods[name] = _method(_trained(name, settings, run, material, say))
        before = load_model(ReaderModel, _folder(run, name) / "distilled").to(model.device)
        methods[DISTILLED.format(name)] = _method(before)
    return {**methods, **_model2vec(run, material, say), MAPPING: _mapping_cube(run, say)}


def _model2vec(run: Run, material: Material, say: Callable[[str], None]) -> dict[str, Method]:
    static = static_model(run.ensemble.members[0].teacher, run.baselines_folder / "model2vec", say)
    if static is None:
        return {}
    table = static_table(static, material.tokenizer.texts())
    bag = run.settings.reader.model_copy(update={"context": "none", "cells": [1, 1], "width": table.shape[1]})
    name = DISTILLED.format("Model2Vec")
    folder = _folder(run, name)
    model = new_reader(material, bag, run.parts.dim, table)
    if not folder.is_dir():
        say(f"training the baseline {name}")
    training = folder.with_name(f".{folder.name}-training")
    distilled_reader(model, material, run.parts, folder, training, name)
    shutil.rmtree(training, ignore_errors=True)
    return {"Model2Vec": static_method(static), name: _method(model)}


def variants(reader: ReaderSettings, model: ReaderModel) -> dict[str, ReaderSettings]:
    """Readers that differ from the run's in what lets tokens see each other.

    - ``lattice off``: the same lift and readout, no step between.
    - ``bag``: nothing at all.
    - ``transformer layer``, ``convolutions``: as many context parameters as the lattice, as near as their hidden width
      allows, one layer and as many layers as the lattice has steps.
    """
    found = {"bag": reader.model_copy(update={"context": "none", "cells": [1, 1]})}
    if reader.context != "lattice" or reader.cells != [1, 1]:
        return found
    found = {"lattice off": reader.model_copy(update={"steps": 0}), **found}
    for name, context in (("transformer layer", "transformer"), ("convolutions", "convolutions")):
        found[name] = _sized(reader.model_copy(update={"context": context}), model)
    return found


def _sized(peer: ReaderSettings, model: ReaderModel) -> ReaderSettings:
    """The peer with the hidden width that gives it the context parameters of the model."""

    def count(hidden: int) -> int:
        changed = peer.model_copy(update={"hidden": hidden})
        with torch.device("meta"):
            return ReaderModel(model.config.with_reader(changed)).context_parameters

    one, two = count(1), count(2)
    hidden = max(1, round(1 + (model.context_parameters - one) / (two - one)))
    return peer.model_copy(update={"hidden": hidden})


def _folder(run: Run, name: str) -> Path:
    return run.baselines_folder / name.replace(" ", "_").lower()


def _mapping_cube(run: Run, say: Callable[[str], None]) -> Method:
    """The default cube that carries the teachers' vector of the question to the answer's, trained on the same pairs."""
    defaults = Settings(model="mapping", seed=run.settings.seed)
    folder = _folder(run, MAPPING)
    training = folder.with_name(f".{folder.name}-training")
    if not folder.is_dir():
        say(f"training the baseline {MAPPING}")
        model = new_cube(defaults, run.parts.dim)
        fit(model, run.parts.train, run.parts.validation, defaults.training, training, defaults.seed, MAPPING)
        mix(model, ridge(run.parts, residual=True), run.parts, defaults.training.stop_on)
        model.save(folder)
    shutil.rmtree(training, ignore_errors=True)
    cube = load_model(CubeModel, folder).to(run.model.device)
    teacher, size = _teacher_reads(run), _teacher_size(run)
    return Method(
        cube.predict,
        parameter_count(cube),
        None if size is None else size + sum(p.numel() * p.element_size() for p in cube.parameters()),
        lambda texts: cube.map(teacher(texts)),
    )


def _trained(
    name: str, settings: ReaderSettings, run: Run, material: Material, say: Callable[[str], None]
) -> ReaderModel:
    """The variant tuned, and beside it distilled, trained as the run's reader was, unless its folder has it already."""
    folder = _folder(run, name)
    tuned, training = folder / "tuned", folder / "training"
    if not tuned.is_dir():
        say(f"training the baseline {name}")
        model = new_reader(material, settings, run.parts.dim)
        distilled_reader(model, material, run.parts, folder / "distilled", training / "distilling", name)
        tuned_reader(model, material, run.parts, training / "tuning", f"{name} on pairs")
        model.save(tuned)
    shutil.rmtree(training, ignore_errors=True)
    return load_model(ReaderModel, tuned).to(run.model.device)


def _method(model: ReaderModel) -> Method:
    return Method(model.predict, model.fitted, model.size, model.embed)


def _both_sides(model: ReaderModel) -> Method:
    def bank(part: Part) -> Part:
        return replace(part, answer=model.embed([pair.answer for pair in part.pairs]), bank=model.embed(part.bank_text))

    return replace(_method(model), bank=bank)


def _teacher_size(run: Run) -> int | None:
    sizes = []
    for member in run.ensemble.members:
        if not isinstance(member.teacher, TransformerTeacher):
            return None
        model, _ = member.teacher.load()
        sizes.append(sum(p.numel() * p.element_size() for p in model.parameters()))
    return sum(sizes)


def _teacher_reads(run: Run) -> Callable[[Sequence[str]], Tensor]:
    def read(texts: Sequence[str]) -> Tensor:
        vectors = [F.normalize(member.teacher.embed(texts), dim=-1) for member in run.ensemble.members]
        return run.ensemble.fusion.questions(vectors)

    return read

"""From texts and pairs to a trained reader: the material once, then distillation and tuning for each model of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor

from cube3d.audit import Check
from cube3d.config import ReaderSettings, Settings
from cube3d.data import Pair, Split
from cube3d.data.tasks import task_mix
from cube3d.files import load_json, replacing, save_json
from cube3d.model import load_model
from cube3d.probe import minimal_pairs
from cube3d.progress import progress
from cube3d.reader.corpus import Corpus, write_corpus
from cube3d.reader.distill import distill, going_on
from cube3d.reader.model import ReaderConfig, ReaderModel
from cube3d.reader.tokenizer import TextTokenizer, load_tokenizer, teacher_tokenizer, trained_tokenizer
from cube3d.reader.vectors import log_weights, mapped, reduced, static_vectors
from cube3d.teachers import Ensemble
from cube3d.texts import PAIRS, HeldOut, chosen, read_texts
from cube3d.trainer import Trained, fit
from cube3d.vectors import Parts

LOG, AUDIT = "history.json", "audit.json"
"""What a distilled model's folder has beside the model."""


@dataclass(frozen=True, eq=False)
class Material:
    """What readers of one run are made of, in a folder that :func:`prepare` wrote.

    Attributes:
        folder: with the corpus, the tokenizer and ``about.json``.
        settings: of the run.
        ensemble: the teachers as one.
    """

    folder: Path
    settings: Settings
    ensemble: Ensemble

    @cached_property
    def about(self) -> dict[str, int]:
        """How many ``texts`` there are; how many said what is ``held_out`` or were ``unread``, and were left out; how
        many were ``cut``."""
        found: dict[str, int] = load_json(self.folder / "about.json")
        return found

    @cached_property
    def corpus(self) -> Corpus:
        return Corpus(self.folder)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return load_tokenizer(self.folder, self.settings.reader.max_length)

    @cached_property
    def vectors(self) -> Tensor:
        """What the teachers say of each token alone, ``[V, dim]``."""
        return static_vectors(self.tokenizer.texts(), self.ensemble)

    @cached_property
    def weights(self) -> Tensor:
        """Logarithm of each token's weight by its frequency in the texts, ``[V]``."""
        return log_weights(self.corpus.counts(len(self.tokenizer)))


def prepare(
    folder: Path,
    settings: Settings,
    pairs: Sequence[Pair],
    split: Split,
    ensemble: Ensemble,
    say: Callable[[str], None],
) -> Material:
    """Reads, chooses, tokenizes and embeds the texts, or opens what was written before.

    Args:
        folder: for what is made.
        settings: of the run.
        pairs, split: the training part is a source of texts; what says a text of the others is left out.
        ensemble: the teachers as one.
        say: gets a line or two of what was found.

    Raises:
        UserError: a source that cannot be read, too few texts, or a teacher without a tokenizer.
    """
    material = Material(folder, settings, ensemble)
    if (folder / "about.json").exists():
        return material
    training = [pairs[i] for i in split.train]
    others = (pairs[i] for i in (*split.validation, *split.test))
    held_out = HeldOut(
        [text for pair in others for text in (pair.prompt, pair.question, pair.answer)]
        + [text for pair in minimal_pairs() for text in (pair.first, pair.second)]
    )
    own: list[str] = []
    further: list[list[str]] = []
    dropped = 0
    for source in settings.texts.sources:
        texts = list(dict.fromkeys(progress(read_texts([source], training, say), source, None)))
        kept = [text for text in texts if not held_out.repeated_by(text)]
        dropped += len(texts) - len(kept)
        if source == PAIRS:
            own += kept
        else:
            further.append(kept)
    # Those of the pairs come on top, and whoever has a text first keeps it.
    count = settings.texts.count
    texts = chosen([own, *further], None if count is None else len(set(own)) + count, first=True)
    say(f"{len(texts)} texts to distill from; {dropped} say what is held out and are left out")
    reader = settings.reader
    if reader.tokenizer == "trained":
        tokenizer = trained_tokenizer(texts, reader.vocabulary, reader.max_length)
    else:
        tokenizer = teacher_tokenizer(ensemble.members[0].teacher, reader.max_length)
    cut = write_corpus(folder, texts, tokenizer, ensemble)
    unread = len(texts) - len(material.corpus)
    if unread:
        say(f"{unread} texts that the tokenizer or a teacher cannot read are left out")
    if cut:
        say(f"{cut} texts have more than {reader.max_length} tokens (reader.max_length); the rest of them is cut off")
    tokenizer.save(folder)
    save_json(folder / "about.json", {"texts": len(material.corpus), "held_out": dropped, "unread": unread, "cut": cut})
    return material


def new_reader(material: Material, reader: ReaderSettings, dim: int, vectors: Tensor | None = None) -> ReaderModel:
    """The reader before training: the weighted mean of what the teachers say of each token. The same for the same seed.

    Args:
        material: tokenizer, vectors and weights.
        reader: its settings; baselines differ from the run's own.
        dim: of the teachers' space.
        vectors: token vectors ``[V, reader.width]`` to start from instead of the teachers', mapped onto those.
    """
    torch.manual_seed(material.settings.seed)
    vocabulary = len(material.tokenizer)
    trained_as = reader.model_copy(update={"storage": "float32"})
    config = ReaderConfig(
        vocabulary=vocabulary,
        dim=dim,
        reader=trained_as.model_dump(),
        loss=material.settings.loss.model_dump(),
    )
    model = ReaderModel(config)
    model.tokenizer = material.tokenizer
    with torch.no_grad():
        if vectors is not None:
            model.table.vectors.copy_(vectors)
            model.reading.to_output.weight.copy_(mapped(vectors, material.vectors).T)
        elif reader.vectors == "random":
            torch.nn.init.normal_(model.table.vectors, std=model.table.width**-0.5)
        elif reader.width is None:
            model.table.vectors.copy_(material.vectors)
        else:
            components, back = reduced(material.vectors, reader.width)
            model.table.vectors.copy_(components)
            model.reading.to_output.weight.copy_(back.T)
        model.log_weight.copy_(material.weights)
    return model


def distilled_reader(
    model: ReaderModel,
    material: Material,
    parts: Parts,
    folder: Path,
    training: Path,
    say: Callable[[str], None] | None,
) -> list[Check]:
    """Distills the reader and saves it, with the log; takes what is there instead.

    Args:
        model: as :func:`new_reader` made it; it is trained in place.
        material: the texts.
        parts: the validation part is measured after every epoch.
        folder: of the distilled model.
        training: folder of the checkpoints.
        say: gets a line an epoch; None: silent.

    Returns:
        The audit of the parameters.

    Raises:
        UserError: see :func:`cube3d.reader.distill.distill`.
    """
    settings = material.settings
    if not folder.is_dir():
        trained = Trained([], [])
        if settings.distillation.epochs:
            trained = distill(
                model, material.corpus, parts.validation, settings.distillation, training, settings.seed, say
            )
        process = PartialState(cpu=True)
        if process.is_main_process:
            with replacing(folder) as temporary:
                model.save_in(temporary)
                save_json(temporary / LOG, trained.history)
                save_json(temporary / AUDIT, [check.as_dict() for check in trained.checks])
        process.wait_for_everyone()
    model.load_state_dict(load_model(ReaderModel, folder).state_dict())
    return [Check(**check) for check in load_json(folder / AUDIT)]


def tuned_reader(model: ReaderModel, material: Material, parts: Parts, training: Path, progress: bool) -> Trained:
    """Tunes a distilled reader on the training pairs, in place; goes on from a checkpoint.

    Args:
        model: distilled.
        material: the texts, on which distillation goes on.
        parts: the pairs.
        training: folder of the checkpoints.
        progress: print a line an epoch.

    Raises:
        UserError: see :func:`cube3d.trainer.fit`.
    """
    settings = material.settings
    beside = going_on(
        model,
        material.corpus,
        settings.distillation,
        settings.tuning,
        settings.training.learning_rate,
        settings.training.weight_decay,
        settings.seed,
    )
    pairs = task_mix(parts.train, settings.data.tasks, settings.seed)
    return fit(model, pairs, parts.validation, settings.training, training, settings.seed, progress, beside)

"""One typed configuration of a run: a YAML file, overrides on the command line, unknown keys an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cube3d.data import BUNDLED, CONTEXT_TURNS
from cube3d.errors import UserError
from cube_kernels import Lattice, Rule


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 3e-3 for a string; here it is a number, as in YAML 1.2."""


class _Dumper(yaml.SafeDumper):
    """Quotes the text "3e-3", which the loader would take for a number."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TaskSettings(Section):
    """Shares of the training rows, which sum to 1; all 0, as here: every pair once and nothing else."""

    qa: float = Field(0.0, ge=0, le=1)
    """Questions that stand alone, to their answers."""
    dialogue: float = Field(0.0, ge=0, le=1)
    """Questions from conversations, with the turns before them, to their answers."""
    autoencoder: float = Field(0.0, ge=0, le=1)
    """Questions and answers, each to itself."""

    @model_validator(mode="after")
    def _whole(self) -> TaskSettings:
        total = self.qa + self.dialogue + self.autoencoder
        if total and abs(total - 1) > 1e-6:
            raise ValueError(f"the shares sum to {total:g}; they are parts of 1")
        return self


class RephraseSettings(Section):
    """Questions made from those of the training part, in the answer groups of their sources."""

    templates: int = Field(0, ge=0)
    """How many by putting a question into another form."""
    model: int = Field(0, ge=0)
    """How many by a local language model; those stay that the teachers take for the same question."""
    generator: str = "smollm2"
    """The language model: the embedded "smollm2", a folder, or the name of a model on the Hugging Face hub."""
    similarity: float = Field(0.85, ge=-1, le=1)
    """Least cosine of a model's question with its source, in the first teacher."""


class DataSettings(Section):
    pairs: list[str] = [BUNDLED]
    """Files of pairs, "bundled", or "docs:<module>" for the docstrings of an installed module."""
    context: int = Field(CONTEXT_TURNS, ge=0)
    """Turns of a conversation before a question that are read with it."""
    tasks: TaskSettings = TaskSettings()
    rephrase: RephraseSettings = RephraseSettings()
    validation: float = Field(0.15, gt=0, lt=1)
    """Share of the answer groups that choose when to stop."""
    test: float = Field(0.25, gt=0, lt=1)
    """Share of the answer groups that nothing but the evaluation sees."""
    test_seed: int | None = Field(None, ge=0)
    """Seed of the choice of the test groups. None takes the run's seed; a number gives runs of different seeds one
    test part, so that what is chosen over several seeds has seen nothing of it."""


class TeacherSettings(Section):
    model: str = "minilm"
    """The embedded "minilm" or "smollm2", a folder, a GGUF file, the name of a model on the Hugging Face hub (followed
    by "/file.gguf" for a GGUF file there), a file of word vectors (.vec, .txt or .bin), or "module:Class" of an
    adapter."""
    pooling: Literal["mean", "cls", "last"] = "mean"
    """Mean over the tokens, the first token, or the last one."""
    max_length: int = Field(256, ge=2)
    """Tokens of a text that are read."""
    batch_size: int = Field(32, ge=1)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the model while it runs, however its weights are stored. Its vectors are float32 in any case."""
    device: str = "auto"
    """Where the model runs: "cpu", "cuda:1"; "auto" takes an accelerator if there is one."""
    whiten: bool | None = None
    """Whiten the vectors by the training texts' covariance. null: decoders and word vectors yes, others no."""
    trust_remote_code: str | None = None
    """The model's name again, to run the Python code that comes with it."""

    @model_validator(mode="after")
    def _trusts_this_model(self) -> TeacherSettings:
        if self.trust_remote_code not in (None, self.model):
            raise ValueError(
                f"trust_remote_code names {self.trust_remote_code!r}, but the model is {self.model!r}; "
                "its code runs only if both are the same"
            )
        return self


class EnsembleSettings(Section):
    """How the vectors of several teachers become one."""

    space: Literal["concatenation", "pca", "procrustes"] = "concatenation"
    """One after the other; that reduced to ``dim`` principal components; or all turned onto the first teacher's."""
    dim: int | None = Field(None, ge=2)
    """Dimensions of the space "pca"."""
    weights: Literal["likelihood"] | list[float] = "likelihood"
    """One for each teacher, by proportion; or those under which the true training answers are most likely."""
    confidence: bool = False
    """Weigh each question's teachers by how clearly one answer is nearest, too. Measured to add nothing by itself."""
    floor: float = Field(0.05, ge=0, lt=1)
    """Least weight that "likelihood" or confidence gives a teacher."""
    window: int = Field(100, ge=1)
    """Batches of training pairs that "likelihood" looks back on."""

    @model_validator(mode="after")
    def _fits(self) -> EnsembleSettings:
        if (self.space == "pca") != (self.dim is not None):
            raise ValueError(
                f"space is {self.space!r} and dim is {self.dim}; dim belongs to the space 'pca', which needs it"
            )
        if isinstance(self.weights, list) and not (all(w >= 0 for w in self.weights) and sum(self.weights) > 0):
            raise ValueError(f"weights are {self.weights}; none may be negative, and one must be positive")
        return self


Offset = Annotated[list[int], Field(min_length=3, max_length=3)]
"""From a cell to one that it sees, ``[d, h, w]``."""


class LatticeSettings(Section):
    """A lattice but for its size, and its rule."""

    channels: int
    neighborhood: str | list[Offset]
    """A name, or a list of offsets [d, h, w]."""
    radius: int
    boundary: str = "walls"
    perception: str = "depthwise"
    filters: int
    hidden: int
    activation: str = "gelu"
    update: str = "gated"
    steps: int = Field(4, ge=0)
    backend: str = "auto"
    checkpoint_every: int | None = Field(None, ge=1)

    def lattice(self, shape: tuple[int, int, int]) -> Lattice:
        listed = self.neighborhood
        neighborhood = listed if isinstance(listed, str) else tuple((d, h, w) for d, h, w in listed)
        return Lattice(shape, self.channels, neighborhood, self.radius, self.boundary)

    def rule(self) -> Rule:
        return Rule(
            perception=self.perception,
            filters=self.filters,
            hidden=self.hidden,
            activation=self.activation,
            update=self.update,
        )


class CubeSettings(LatticeSettings):
    """The cube that carries a question's embedding to its answer's."""

    shape: list[int] = Field([2, 2, 2], min_length=3, max_length=3)
    channels: int = 16
    neighborhood: str | list[Offset] = "von_neumann"
    radius: int = 1
    filters: int = 1
    hidden: int = 64
    lift: Literal["per_cell", "shared", "dense"] = "dense"
    """A map of each cell's own dimensions to its channels, one such map for all cells, or one of all dimensions to all
    cells."""
    input: Literal["volume", "front", "back", "corners"] = "volume"
    """Where the question enters: everywhere, the first or the last slice along D, or the corners."""
    output: Literal["volume", "front", "back", "corners"] = "volume"
    """Where the answer is read. From face to face, the steps must reach across."""
    proportion: float = Field(1.0, gt=0, le=1)
    """Share of a face that is taken, in whole rows around its middle."""
    placement: Literal["plain", "correlation"] = "plain"
    """The dimensions in their order, or those that go together in the training part near to each other."""

    @model_validator(mode="after")
    def _fits(self) -> CubeSettings:
        self.whole_lattice()
        self.rule()
        if self.lift == "dense" and self.placement == "correlation":
            raise ValueError(
                "placement 'correlation' lays dimensions on cells; with lift 'dense' each cell sees them all: take "
                "'per_cell' or 'shared'"
            )
        return self

    def whole_lattice(self) -> Lattice:
        depth, height, width = self.shape
        return self.lattice((depth, height, width))


HEADS = 4
"""Of a transformer's layer in the lattice's place; fewer where they would not divide its channels."""


class ReaderSettings(LatticeSettings):
    """The reader: token vectors, a lattice over the tokens, their weighted mean."""

    tokenizer: Literal["teacher", "trained"] = "teacher"
    """Of the first teacher, or a WordPiece of its own, trained on the texts."""
    vocabulary: int = Field(16000, ge=100)
    """Entries of a trained tokenizer, at most."""
    max_length: int = Field(128, ge=1)
    """Tokens of a text that are read; the rest is cut off."""
    vectors: Literal["teacher", "random"] = "teacher"
    """Where token vectors start: what the teachers say of each token alone, or drawn at random."""
    train_vectors: bool = True
    """Whether they are trained further."""
    width: int | None = Field(None, ge=2)
    """Numbers of a token vector, the principal components of the teachers'; null: as many as the teachers have."""
    storage: Literal["float32", "float16", "int8"] = "float32"
    """How the table of token vectors is saved; it is trained in float32."""
    context: Literal["lattice", "none", "transformer", "convolutions"] = "lattice"
    """What lets tokens see each other. "none" is a bag of tokens; a transformer's layer and untied convolutions are
    there to be measured beside the lattice."""
    cells: list[int] = Field([1, 1], min_length=2, max_length=2)
    """Cells a token has along D and H; the text lies along W."""
    channels: int = 64
    neighborhood: str | list[Offset] = "line"
    radius: int = 4
    filters: int = 2
    hidden: int = 128
    steps: int = Field(2, ge=0)
    token_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the tokens that training leaves out."""

    @model_validator(mode="after")
    def _fits(self) -> ReaderSettings:
        depth, height = self.cells
        self.lattice((depth, height, self.max_length))
        self.rule()
        if self.context != "lattice" and self.cells != [1, 1]:
            raise ValueError(f"cells is {self.cells}, but the context is {self.context!r}; only a lattice has cells")
        return self


class TextSettings(Section):
    """What a reader is distilled from."""

    sources: list[str] = ["pairs", *(f"docs:{module}" for module in ("numpy", "torch.nn", "networkx", "matplotlib"))]
    """The training "pairs", "docs:<module>" for docstrings and README of an installed package, text and Markdown files,
    JSONL with a "text", dictionaries of dictd (.dict, .dict.dz). What says a held-out text is left out."""
    count: int | None = Field(4000, ge=2)
    """Texts beside those of the pairs, from each source as many as from the others; null: all."""

    @model_validator(mode="after")
    def _different(self) -> TextSettings:
        repeated = sorted({source for source in self.sources if self.sources.count(source) > 1})
        if repeated or not self.sources:
            raise ValueError(f"sources repeat {repeated[0]!r}" if repeated else "sources are empty: name some")
        return self


class DistillationSettings(Section):
    """A reader learns to say of any text what the teachers say, before it sees a pair."""

    epochs: int = Field(3, ge=0)
    """0: the reader stays as its token vectors make it."""
    batch_size: int = Field(256, ge=2)
    learning_rate: float = Field(2e-3, gt=0)
    vectors_learning_rate: float = Field(1e-3, gt=0)
    """Of the token vectors."""
    weights_learning_rate: float = Field(2e-2, gt=0)
    """Of the tokens' weights."""
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    cosine: float = Field(1.0, ge=0)
    """Weight of the cosine distance to the teachers' vector."""
    relational: float = Field(4.0, ge=0)
    """Weight of relational distillation: texts as near to each other as the teachers have them."""
    temperature: float = Field(3.0, gt=0)
    """Of relational distillation."""


class TuningSettings(Section):
    """How a distilled reader learns from pairs, beside `training` and `loss`."""

    distillation: float = Field(1.0, ge=0)
    """Weight of the distillation that goes on, a batch of texts a step; 0: none."""
    hold: float = Field(0.0, ge=0)
    """Weight of the squared distance of a batch's token vectors from the distilled ones."""
    vectors_learning_rate: float = Field(1e-3, ge=0)
    """Of the token vectors; 0: they stay as they are."""


class NegativeSettings(Section):
    """Wrong answers that InfoNCE and the triplet loss push away from."""

    pool: Literal["bank", "batch"] = "bank"
    """The candidates: all distinct answers of the training part, or the batch's, the mined ones and the memory's."""
    choose: Literal["all", "random", "hard", "semi_hard"] = "all"
    """Which of the candidates count."""
    count: int | None = Field(None, ge=1)
    """Candidates that count for each pair; null takes all that qualify."""
    mined: int = Field(0, ge=0)
    """Wrong training answers nearest to each question by the teacher, added to its batch; for the pool "batch"."""
    memory: int = Field(0, ge=0)
    """Answers of earlier batches that are kept as candidates; for the pool "batch"."""
    ceiling: float | None = Field(None, gt=-1, lt=1)
    """Teacher's cosine with the true answer above which a candidate passes for a right answer; null: none does."""

    @model_validator(mode="after")
    def _counted(self) -> NegativeSettings:
        if self.choose in ("random", "hard") and self.count is None:
            raise ValueError(f"choose {self.choose!r} needs a count")
        if self.choose == "all" and self.count is not None:
            raise ValueError(f"choose 'all' takes no count, got {self.count}; valid with one: random, hard, semi_hard")
        for name in ("mined", "memory"):
            if self.pool == "bank" and getattr(self, name):
                raise ValueError(f"{name} adds answers to those of a batch, and pool 'bank' has all; set pool: batch")
        return self


class LossSettings(Section):
    """Weights of the losses by their names, and what the losses take."""

    cosine: float = Field(8.0, ge=0)
    """Cosine distance to the true answer."""
    mse: float = Field(0.0, ge=0)
    """Squared distance to the true answer."""
    triplet: float = Field(0.0, ge=0)
    """Nearer to the true answer than to each negative, by the margin."""
    info_nce: float = Field(1.0, ge=0)
    """Log-likelihood of the true answer among the negatives."""
    diversity: float = Field(0.0, ge=0)
    """Predictions of different answers spread evenly."""
    distillation: float = Field(0.0, ge=0)
    """Predictions as near to each other as their answers are."""
    temperature: float = Field(0.07, gt=0)
    """Of InfoNCE."""
    learn_temperature: bool = False
    """Learn the temperature, from there on."""
    margin: float = Field(0.2, gt=0, le=2)
    """Of the triplet loss and of semi-hard negatives, in cosine."""
    distillation_temperature: float = Field(3.0, gt=0)
    negatives: NegativeSettings = NegativeSettings()

    @model_validator(mode="after")
    def _some(self) -> LossSettings:
        if not any(getattr(self, name) for name in LOSS_NAMES):
            raise ValueError(f"every loss has weight 0; give one a positive weight: {', '.join(LOSS_NAMES)}")
        return self


LOSS_NAMES = ("cosine", "mse", "triplet", "info_nce", "diversity", "distillation")
"""The fields of :class:`LossSettings` that are weights."""


class CurriculumSettings(Section):
    """Easy pairs first. While the share of the easiest pairs grows, the others are negatives only."""

    by: list[Literal["length", "similarity", "rank"]] = []
    """What makes a pair hard: many characters, vectors far apart, a true answer that ranks low by the teacher's own
    vectors; of several the mean place counts. Empty: no curriculum."""
    start: float = Field(0.3, gt=0, le=1)
    """Share of the easiest pairs that is learned first."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps before it grows."""
    full: float = Field(0.5, gt=0, le=1)
    """Share of the steps after which every pair is learned."""

    @model_validator(mode="after")
    def _ordered(self) -> CurriculumSettings:
        if self.warmup >= self.full:
            raise ValueError(f"warmup {self.warmup} must be less than full {self.full}")
        if len(set(self.by)) < len(self.by):
            raise ValueError(f"by names a measure twice: {', '.join(self.by)}")
        return self


class TrainingSettings(Section):
    epochs: int = Field(30, ge=1)
    batch_size: int = Field(128, ge=2)
    """Pairs of a batch, of all processes together."""
    accumulation: int = Field(1, ge=1)
    """Batches whose gradients are averaged into one step. Each has its own negatives."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the cube's arithmetic (autocast); its parameters and the losses stay in float32."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Share of a question's dimensions that its correction does not see in a training step, drawn anew each time."""
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises; it falls along a half cosine after."""
    max_grad_norm: float = Field(1.0, gt=0)
    stop_on: Literal["loss", "ranking_loss", "mrr", "cosine", "centered_cosine"] = "loss"
    """Validation metric of the best epoch, whose model is kept, and of the best share of a mixture: the sum of the
    losses, the likelihood of the true answer in the validation bank, or one of the table's."""
    patience: int = Field(10, ge=1)
    """Epochs without a better value of it after which training stops."""
    curriculum: CurriculumSettings = CurriculumSettings()
    report_to: list[str] = []
    """Reporters that get every figure as well, by their names in transformers, such as tensorboard or wandb."""


READER_DEFAULTS: dict[str, dict[str, Any]] = {
    "training": {
        "epochs": 20,
        "dropout": 0.0,
        "learning_rate": 3e-4,
        "weight_decay": 0.01,
        "stop_on": "ranking_loss",
        "patience": 6,
    },
    "loss": {"cosine": 1.0, "temperature": 0.05},
}
"""Where the tuning of a reader differs from the training of a mapping."""


SECTIONS = {"reader": ("reader", "texts", "distillation", "tuning"), "mapping": ("cube", "mixture")}
"""What of the settings belongs to one model alone."""


class Settings(Section):
    """Everything that decides the outcome of a run."""

    model: Literal["reader", "mapping"] = "reader"
    """What is trained: a reader of the question's text, which needs no teacher when it is asked, or a mapping of the
    teachers' vector of the question. Its own section is `reader` or `cube`."""
    seed: int = Field(0, ge=0)
    data: DataSettings = DataSettings()
    teachers: list[TeacherSettings] = Field([TeacherSettings()], min_length=1)
    ensemble: EnsembleSettings = EnsembleSettings()
    reader: ReaderSettings = ReaderSettings()
    texts: TextSettings = TextSettings()
    distillation: DistillationSettings = DistillationSettings()
    tuning: TuningSettings = TuningSettings()
    cube: CubeSettings = CubeSettings()
    loss: LossSettings = LossSettings()
    training: TrainingSettings = TrainingSettings()
    mixture: Literal["none", "ridge"] = "ridge"
    """What the trained predictions are mixed with, the cube's and the baselines': nothing, or residual ridge, at the
    share that is best by ``training.stop_on``."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_model(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("model", "reader") != "reader":
            return values
        filled = dict(values)
        for section, defaults in READER_DEFAULTS.items():
            given = filled.get(section, {})
            if isinstance(given, dict):
                filled[section] = {**defaults, **given}
        return filled

    @model_validator(mode="after")
    def _nothing_idle(self) -> Settings:
        """A section of the other model would change nothing: who sets it wants that model."""
        other = "mapping" if self.model == "reader" else "reader"
        for name in SECTIONS[other]:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is set, but belongs to model {other!r} and model is {self.model!r}")
        return self

    @model_validator(mode="after")
    def _every_teacher_has_a_weight(self) -> Settings:
        count, ensemble = len(self.teachers), self.ensemble
        if isinstance(ensemble.weights, list) and len(ensemble.weights) != count:
            raise ValueError(f"ensemble.weights has {len(ensemble.weights)} weights for {count} teachers")
        if ensemble.floor * count > 1:
            raise ValueError(f"ensemble.floor is {ensemble.floor}; {count} teachers leave at most {1 / count:.3g}")
        return self


SectionType = TypeVar("SectionType", bound=Section)


def parse_settings(values: dict[str, Any], origin: str) -> Settings:
    """Settings from nested dictionaries. Raises what :func:`parse_section` does."""
    return parse_section(Settings, values, origin)


def parse_section(kind: type[SectionType], values: dict[str, Any], origin: str) -> SectionType:
    """Any section from nested dictionaries.

    Raises:
        UserError: an unknown key (the message names the valid ones), a wrong type or value.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(f"{origin}: {_explain(kind, e)}" for e in error.errors())) from error


def read_yaml(path: Path, kind: type[Section]) -> dict[str, Any]:
    """The mapping in a file; {} if it is empty.

    Args:
        kind: what the file should hold; an error shows its keys.

    Raises:
        UserError: a file that cannot be read, or holds something else.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that is none
        raise UserError(f"{path}: not YAML ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected sections such as {', '.join(kind.model_fields)}")
    return values


def set_value(values: dict[str, Any], name: str, value: Any) -> None:
    """Puts a value into nested dictionaries and lists under its dotted name, such as ``cube.steps`` or
    ``teachers.0.pooling``.

    Raises:
        UserError: the name leads through a value, or to a place that a list does not have.
    """
    *sections, key = name.split(".")
    if sections[:1] == ["teachers"]:
        values.setdefault("teachers", [{}])  # where none is named there is one, the default
    target: Any = values
    for section in sections:
        target = target[_place(target, section, name)] if isinstance(target, list) else target.setdefault(section, {})
        if not isinstance(target, dict | list):
            raise UserError(f"{name!r}: {section!r} is a value, not a section")
    target[_place(target, key, name) if isinstance(target, list) else key] = value


def _place(target: list[Any], text: str, name: str) -> int:
    if not (text.isdigit() and int(text) < len(target)):
        raise UserError(f"{name!r}: the list holds {len(target)}; {text!r} is no number from 0 to {len(target) - 1}")
    return int(text)


def load_settings(path: Path | None, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a run. Raises what :func:`load_section` does."""
    return load_section(Settings, path, overrides)


def load_section(kind: type[SectionType], path: Path | None, overrides: Sequence[str] = ()) -> SectionType:
    """Any section from a YAML file (None: the defaults) and overrides ``section.key=value``, the value in YAML.

    Raises:
        UserError: a file that cannot be read, an override without "=", and what :func:`parse_section` raises.
    """
    values = {} if path is None else read_yaml(path, kind)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"override {override!r}: expected section.key=value, such as cube.steps=8")
        try:
            value = yaml.load(text, _Loader)
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"override {override!r}: the value is not YAML ({error})") from error
        try:
            set_value(values, name, value)
        except UserError as error:
            raise UserError(f"override {override!r}: {error}") from error
    return parse_section(kind, values, "configuration" if path is None else str(path))


def dump_settings(settings: Section) -> str:
    """The resolved settings as YAML that :func:`load_settings` reads back."""
    return yaml.dump(settings.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def differences(settings: Settings, other: Settings) -> list[str]:
    """The full names of the settings that differ, such as ``cube.steps``."""
    ours, theirs = (dict(_flat(values.model_dump())) for values in (settings, other))
    return [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _explain(kind: type[Section], error: Any) -> str:
    """One problem that pydantic found, with the valid keys where a key is unknown."""
    *sections, key = error["loc"] or ("",)
    if error["type"] == "extra_forbidden":
        model: Any = kind
        for section in sections:
            model = get_args(model)[0] if isinstance(section, int) else model.model_fields[section].annotation
        valid = list(model.model_fields)
        close = difflib.get_close_matches(str(key), valid, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        where = ".".join(map(str, sections)) or "the top level"
        return f"unknown key {key!r} in {where}{hint}; valid: {', '.join(valid)}"
    name = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    where = f"{name}: " if name else ""  # what does not fit together stands at the top
    return where + message + ("" if error["type"] == "value_error" else f", got {error['input']!r}")

"""Models that predict an answer's vector, as ``transformers`` models, and those that map the question's vector to
it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from cube3d.config import CubeSettings, LossSettings
from cube3d.device import first_process
from cube3d.errors import UserError
from cube3d.files import replacing
from cube3d.losses import Objective
from cube3d.placement import correlation_order
from cube3d.vectors import Part
from cube_kernels import EmbeddingCube


@dataclass
class AnswerOutput(ModelOutput):
    """``prediction`` is ``[B, dim]``; ``loss`` and its unweighted ``parts`` are there if the answers were given."""

    loss: Tensor | None = None
    prediction: Tensor | None = None
    parts: dict[str, Tensor] | None = None


class AnswerConfig(PreTrainedConfig):
    """What every model has: the width of the answers' vectors and the losses it is trained with."""

    keys_to_ignore_at_inference: ClassVar = ["parts"]

    def __init__(self, dim: int = 384, loss: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.dim = dim
        self.loss = LossSettings.model_validate(loss or {}).model_dump()
        super().__init__(**kwargs)


class MappingConfig(AnswerConfig):
    """Adds whether ridge is mixed into the predictions."""

    def __init__(self, mixture: bool = False, **kwargs: Any) -> None:
        self.mixture = mixture
        super().__init__(**kwargs)


class CubeConfig(MappingConfig):
    """Adds the cube's settings, as in the run's configuration."""

    model_type = "cube3d"

    def __init__(self, cube: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.cube = CubeSettings.model_validate(cube or {}).model_dump()
        super().__init__(**kwargs)


class MLPConfig(MappingConfig):
    """Adds the width of the hidden layer."""

    model_type = "cube3d_mlp"

    def __init__(self, hidden: int = 32, **kwargs: Any) -> None:
        self.hidden = hidden
        super().__init__(**kwargs)


class AnswerModel(PreTrainedModel):
    """Predicts the vector of a question's answer, ``[B, dim]``, with the loss where the answers are given. A subclass
    says what it reads of a question."""

    config: AnswerConfig

    def _complete(self) -> None:
        """The end of every subclass's constructor."""
        self.objective = Objective(LossSettings(**self.config.loss), self.config.dim)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: modules draw their own parameters, and transformers would draw those of linear layers again."""

    def complete(
        self,
        prediction: Tensor,
        answer_embedding: Tensor | None = None,
        group: Tensor | None = None,
        counted: Tensor | None = None,
        mined: Tensor | None = None,
        mined_group: Tensor | None = None,
        bank: Tensor | None = None,
        bank_group: Tensor | None = None,
    ) -> AnswerOutput:
        """The end of every subclass's forward pass.

        Args:
            prediction: ``[B, dim]``.
            answer_embedding: ``[B, dim]``, only for the loss.
            group: answer group of each row, ``[B]``, int64, only for the loss.
            counted, mined, mined_group, bank, bank_group: see :class:`cube3d.losses.Objective`.
        """
        if answer_embedding is None or group is None:
            return AnswerOutput(prediction=prediction)
        loss, parts = self.objective(prediction, answer_embedding, group, counted, mined, mined_group, bank, bank_group)
        return AnswerOutput(loss=loss, prediction=prediction, parts=parts)

    @property
    def input_width(self) -> int:
        """How many dimensions training drops some of (``kept``)."""
        return self.config.dim

    def inputs(self, part: Part) -> Sequence[dict[str, Tensor]]:
        """What the forward pass takes of each question of a part, by the names of its arguments."""
        raise NotImplementedError

    def collate(self, rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Several rows of :meth:`inputs`, with what else they have, as one batch."""
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def predict(self, part: Part) -> Tensor:
        """Predicted answers ``[N, dim]`` for the questions of a part, on the CPU wherever the model is."""
        raise NotImplementedError

    def trainable(self) -> list[str]:
        """Names of the parameters that training must move."""
        return [name for name, _ in self.named_parameters()]

    def prepare(self, train: Tensor) -> None:
        """Takes what it needs from the training part's vectors ``[N, dim]``, before the first step."""

    def save(self, folder: Path) -> None:
        """Writes config and safetensors, whole or not at all. Of several processes the first one does."""
        with first_process() as writes:
            if writes:
                with replacing(folder) as temporary:
                    self.save_in(temporary)

    def save_in(self, folder: Path) -> None:
        """As :meth:`save`, into a folder that is not in use yet."""
        self.save_pretrained(folder)


class RidgeMixture(nn.Module):
    """``(1 - share) · p/‖p‖ + share · r/‖r‖`` of a question's prediction ``p`` and what ridge gives,
    ``r = q · map + shift``. Nothing of it is learned by gradients."""

    map: Tensor
    shift: Tensor
    share: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("map", torch.zeros(dim, dim))
        self.register_buffer("shift", torch.zeros(dim))
        self.register_buffer("share", torch.tensor(0.0))

    def forward(self, prediction: Tensor, question: Tensor) -> Tensor:
        ridge = question @ self.map + self.shift
        return (1 - self.share) * F.normalize(prediction, dim=-1) + self.share * F.normalize(ridge, dim=-1)


class MappingModel(AnswerModel):
    """``[B, dim] → [B, dim]`` by ``self.mapping`` and, once :meth:`set_ridge` was called, ``self.mixture``."""

    config: MappingConfig
    mapping: nn.Module
    mixture: RidgeMixture | None

    def _complete(self) -> None:
        self.mixture = RidgeMixture(self.config.dim) if self.config.mixture else None
        super()._complete()

    def forward(self, question_embedding: Tensor, kept: Tensor | None = None, **labels: Tensor | None) -> AnswerOutput:
        """
        Args:
            question_embedding: ``[B, dim]``.
            kept: the dimensions of each question that the correction is computed from, ``[B, dim]``, bool; None: all.
            labels: see :meth:`complete`.
        """
        prediction = self._mixed(self._corrected(question_embedding, kept), question_embedding)
        return self.complete(prediction, **labels)

    def _corrected(self, question: Tensor, kept: Tensor | None) -> Tensor:
        """The question with the correction that the mapping finds for its kept dimensions, brought to the length of
        all. The question itself keeps every dimension: what is dropped from it would be noise in the prediction."""
        if kept is None:
            return self.mapping(question)
        seen = F.normalize(question * kept, dim=-1) * question.norm(dim=-1, keepdim=True)
        return question + self.mapping(seen) - seen

    def _mixed(self, prediction: Tensor, question: Tensor) -> Tensor:
        return prediction if self.mixture is None else self.mixture(prediction, question)

    def set_ridge(self, map: Tensor, shift: Tensor, share: float) -> None:
        """Mixes ``q · map + shift`` into the predictions from now on. It is saved with the parameters.

        Args:
            map: ``[dim, dim]``.
            shift: ``[dim]``.
            share: of ridge, from 0 to 1.
        """
        mixture = RidgeMixture(self.config.dim)
        mixture.load_state_dict({"map": map, "shift": shift, "share": torch.tensor(share)})
        self.mixture, self.config.mixture = mixture.to(self.device), True

    def inputs(self, part: Part) -> Sequence[dict[str, Tensor]]:
        return [{"question_embedding": vector} for vector in part.question]

    def predict(self, part: Part) -> Tensor:
        return self.map(part.question)

    @torch.no_grad()
    def map(self, questions: Tensor) -> Tensor:
        """Predicted answers ``[N, dim]`` for question embeddings ``[N, dim]``, on the CPU wherever the model is."""
        return self._in_batches(lambda batch: self._mixed(self.mapping(batch), batch), questions)

    @torch.no_grad()
    def alone(self, questions: Tensor) -> Tensor:
        """Like :meth:`map`, without the mixture."""
        return self._in_batches(self.mapping, questions)

    def _in_batches(self, predict: Callable[[Tensor], Tensor], questions: Tensor) -> Tensor:
        self.eval()
        return torch.cat([predict(batch.to(self.device)).cpu() for batch in questions.split(1024)])


class CubeModel(MappingModel):
    """An :class:`cube_kernels.EmbeddingCube` with its losses."""

    config_class = CubeConfig
    mapping: EmbeddingCube

    def __init__(self, config: CubeConfig) -> None:
        super().__init__(config)
        cube = CubeSettings(**config.cube)
        self.mapping = EmbeddingCube(
            config.dim,
            cube.whole_lattice(),
            cube.rule(),
            cube.steps,
            lift=cube.lift,
            backend=cube.backend,
            checkpoint_every=cube.checkpoint_every,
            input=cube.input,
            output=cube.output,
            proportion=cube.proportion,
            order=torch.arange(config.dim) if cube.placement == "correlation" else None,
        )
        self._complete()

    def trainable(self) -> list[str]:
        """All but the rule's where the lattice is off: it computes nothing then."""
        off = self.mapping.layer.steps == 0
        return [name for name in super().trainable() if not (off and name.startswith("mapping.layer."))]

    def prepare(self, train: Tensor) -> None:
        if self.mapping.order is not None:
            self.mapping.set_order(correlation_order(train, self.mapping.input_shape))


class ResidualMLP(nn.Module):
    """``e + rms(e) · W2 gelu(W1 e/rms(e) + b1) + b2``, the identity at the start, as the cube is."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.to_hidden = nn.Linear(dim, hidden)
        self.to_output = nn.Linear(hidden, dim)
        nn.init.zeros_(self.to_output.weight)
        nn.init.zeros_(self.to_output.bias)

    def forward(self, embedding: Tensor) -> Tensor:
        mean_square = embedding.square().mean(dim=1, keepdim=True)
        scale = mean_square.clamp_min(torch.finfo(embedding.dtype).tiny).sqrt()
        return embedding + scale * self.to_output(F.gelu(self.to_hidden(embedding / scale), approximate="tanh"))


class MLPModel(MappingModel):
    """A residual perceptron with one hidden layer: the baseline of equal size."""

    config_class = MLPConfig
    mapping: ResidualMLP

    def __init__(self, config: MLPConfig) -> None:
        super().__init__(config)
        self.mapping = ResidualMLP(config.dim, config.hidden)
        self._complete()


SomeModel = TypeVar("SomeModel", bound=AnswerModel)

# So that transformers' own AutoConfig and AutoModel load what was saved, once this module is imported.
for _config, _model in ((CubeConfig, CubeModel), (MLPConfig, MLPModel)):
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)


def load_model(kind: type[SomeModel], folder: Path) -> SomeModel:
    """A model that :meth:`AnswerModel.save` wrote.

    Raises:
        UserError: the folder is missing or damaged, or holds another kind of model.
    """
    try:
        model, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with the shapes
        )
    except Exception as error:  # transformers and safetensors raise many kinds for a damaged folder
        raise UserError(f"{folder}: not a {kind.__name__}: {error}") from error
    if report["mismatched_keys"]:
        name, saved, expected = min(report["mismatched_keys"])
        raise UserError(
            f"{folder}: not a whole {kind.__name__}: {name} is {list(saved)} in the file and {list(expected)} by its "
            "config.json: weights of another lattice or rule"
        )
    if report["missing_keys"] or report["unexpected_keys"]:
        problems = {name: sorted(report[name]) for name in ("missing_keys", "unexpected_keys") if report[name]}
        raise UserError(f"{folder}: not a whole {kind.__name__}: {problems}")
    return model.eval()

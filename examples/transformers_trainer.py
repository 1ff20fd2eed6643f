"""An ``EmbeddingCube`` under ``transformers.Trainer``, which asks of a model that it return its loss.

    python examples/transformers_trainer.py --out cube

``cube3d`` trains the same way, with a ``PreTrainedModel`` around the cube (``cube3d/model.py``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch.nn.functional as F
from tasks import DIM, embeddings
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, set_seed

from cube_kernels import EmbeddingCube, Lattice, Rule


class Mapping(nn.Module):
    """Its arguments are the keys of the data; with answers it returns the loss."""

    def __init__(self) -> None:
        super().__init__()
        lattice = Lattice((2, 2, 2), channels=16)
        self.cube = EmbeddingCube(DIM, lattice, Rule(hidden=32, activation="gelu", update="gated"), steps=4)

    def forward(self, question: Tensor, answer: Tensor | None = None) -> dict[str, Tensor]:
        prediction = self.cube(question)
        if answer is None:
            return {"prediction": prediction}
        return {"loss": (1 - F.cosine_similarity(prediction, answer)).mean(), "prediction": prediction}


def data(count: int, seed: int) -> list[dict[str, Tensor]]:
    return [{"question": q, "answer": a} for q, a in zip(*embeddings(count, seed), strict=True)]


def load(folder: Path) -> nn.Module:
    model = Mapping()
    safetensors.torch.load_model(model, folder / "model.safetensors")
    return model


def main(arguments: Sequence[str] | None = None) -> tuple[nn.Module, float, float]:
    parser = argparse.ArgumentParser(description="Trains a cube to rotate vectors.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints and the trained model")
    options = parser.parse_args(arguments)

    set_seed(0)
    model = Mapping()
    trainer = Trainer(
        model,
        TrainingArguments(
            str(options.out),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=50,
            per_device_eval_batch_size=200,
            learning_rate=1e-2,
            label_names=["answer"],  # or the evaluation has no loss
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=data(1000, seed=1),
        eval_dataset=data(200, seed=2),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    trainer.save_model()
    print(f"held-out loss: {before:.4f} before, {after:.4f} after; saved to {options.out}")
    return model, before, after


if __name__ == "__main__":
    main()

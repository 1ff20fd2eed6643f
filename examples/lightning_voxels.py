"""A ``CubeLayer`` between two linear layers in a Lightning module: it takes and gives ``[B, D, H, W, C]``.

python examples/lightning_voxels.py --out voxels.ckpt
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import lightning
import torch
from tasks import SIZE, voxels
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cube_kernels import CubeLayer, Lattice, Rule


class Denoiser(lightning.LightningModule):
    """Whether each voxel is inside the ball. A cell sees its neighbors alone; with each step it sees one further."""

    def __init__(self, channels: int = 8, steps: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        lattice = Lattice((SIZE, SIZE, SIZE), channels, neighborhood="moore", boundary="replicate")
        rule = Rule(filters=2, hidden=16, activation="gelu", update="residual")
        self.layers = nn.Sequential(nn.Linear(1, channels), CubeLayer(lattice, rule, steps), nn.Linear(channels, 1))
        self.loss = nn.BCEWithLogitsLoss()

    def forward(self, noisy: Tensor) -> Tensor:
        return self.layers(noisy)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        noisy, clean = batch
        return self.loss(self(noisy), clean)

    def test_step(self, batch: list[Tensor], index: int) -> None:
        noisy, clean = batch
        self.log("loss", self.loss(self(noisy), clean))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def load(path: Path) -> nn.Module:
    return Denoiser.load_from_checkpoint(path, weights_only=True)


def main(arguments: Sequence[str] | None = None) -> tuple[nn.Module, float, float]:
    parser = argparse.ArgumentParser(description="Trains a lattice to find a ball in noise.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="file of the checkpoint")
    options = parser.parse_args(arguments)

    lightning.seed_everything(0, verbose=False)
    training = DataLoader(TensorDataset(*voxels(80, seed=1)), batch_size=8, shuffle=True)
    testing = DataLoader(TensorDataset(*voxels(40, seed=2)), batch_size=40)
    model = Denoiser()
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    before = trainer.test(model, testing, verbose=False)[0]["loss"]
    trainer.fit(model, training)
    after = trainer.test(model, testing, verbose=False)[0]["loss"]
    trainer.save_checkpoint(options.out)
    print(f"held-out loss: {before:.4f} before, {after:.4f} after; saved to {options.out}")
    return model, before, after


if __name__ == "__main__":
    main()

"""A ``CubeLayer`` between two linear layers under ``accelerate``, with accumulated gradients.

python examples/accelerate_voxels.py --out voxels
accelerate launch --num_processes 2 --cpu examples/accelerate_voxels.py --out voxels
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tasks import SIZE, voxels
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cube_kernels import CubeLayer, Lattice, Rule


def build() -> nn.Module:
    lattice = Lattice((SIZE, SIZE, SIZE), channels=8, neighborhood="moore", boundary="replicate")
    rule = Rule(filters=2, hidden=16, activation="gelu", update="residual")
    return nn.Sequential(nn.Linear(1, 8), CubeLayer(lattice, rule, steps=4), nn.Linear(8, 1))


def load(folder: Path) -> nn.Module:
    model = build()
    safetensors.torch.load_model(model, folder / "model.safetensors")
    return model


def main(arguments: Sequence[str] | None = None) -> tuple[nn.Module, float, float]:
    parser = argparse.ArgumentParser(description="Trains a lattice to find a ball in noise.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained model")
    options = parser.parse_args(arguments)

    set_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = DataLoader(TensorDataset(*voxels(80, seed=1)), batch_size=4, shuffle=True)
    model, optimizer, batches = accelerator.prepare(model, optimizer, batches)
    loss_of = nn.BCEWithLogitsLoss()

    def held_out_loss() -> float:
        noisy, clean = voxels(40, seed=2)
        with torch.no_grad():
            return loss_of(model(noisy), clean).item()

    before = held_out_loss()
    for _ in range(options.epochs):
        for noisy, clean in batches:
            with accelerator.accumulate(model):
                loss = loss_of(model(noisy), clean)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
    after = held_out_loss()
    accelerator.save_model(model, options.out)
    accelerator.print(f"held-out loss: {before:.4f} before, {after:.4f} after; saved to {options.out}")
    return accelerator.unwrap_model(model), before, after


if __name__ == "__main__":
    main()

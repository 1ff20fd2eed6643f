"""An ``EmbeddingCube`` in a plain training loop: it takes and gives ``[B, dim]``, as ``nn.Linear(dim, dim)`` does.

python examples/plain_loop.py --out cube.pt
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tasks import DIM, embeddings
from torch import nn

from cube_kernels import EmbeddingCube, Lattice, Rule


def build() -> nn.Module:
    lattice = Lattice((2, 2, 2), channels=16)
    return EmbeddingCube(DIM, lattice, Rule(hidden=32, activation="gelu", update="gated"), steps=4)


def held_out_loss(model: nn.Module) -> float:
    question, answer = embeddings(200, seed=2)
    with torch.no_grad():
        return (1 - F.cosine_similarity(model(question), answer)).mean().item()


def load(path: Path) -> nn.Module:
    model = build()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def main(arguments: Sequence[str] | None = None) -> tuple[nn.Module, float, float]:
    parser = argparse.ArgumentParser(description="Trains a cube to rotate vectors.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True, help="file of the trained weights")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    model = build()
    before = held_out_loss(model)
    question, answer = embeddings(1000, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(options.epochs):
        for rows in torch.randperm(len(question)).split(50):
            loss = (1 - F.cosine_similarity(model(question[rows]), answer[rows])).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = held_out_loss(model)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), options.out)
    print(f"held-out loss: {before:.4f} before, {after:.4f} after; saved to {options.out}")
    return model, before, after


if __name__ == "__main__":
    main()

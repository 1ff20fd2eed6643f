"""A cube in the query route of a sentence-transformers ``Router``, trained by its trainer with its losses.

    python examples/sentence_transformers_router.py --model sentence-transformers/all-MiniLM-L6-v2 --out model

Questions go through the encoder and then through the cube, answers through the encoder alone, which stays as it was.
The module is in ``sentence_transformers_cube.py``, which is saved with the model: ``SentenceTransformer("model",
trust_remote_code=True)`` loads it wherever cube-kernels is installed.

Needs ``pip install "sentence-transformers[train]"``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers_cube import Cube
from torch import Tensor

from cube3d.pairs import read_pairs


def with_cube(encoder: SentenceTransformer, shape: list[int]) -> SentenceTransformer:
    """Both routes share the encoder's modules; its parameters are frozen, so that training moves the cube alone."""
    encoder.requires_grad_(False)
    dim = encoder.get_embedding_dimension()
    assert dim is not None
    document = list(encoder.children())
    router = Router.for_query_document(query_modules=[*document, Cube(dim, shape)], document_modules=document)
    return SentenceTransformer(modules=[router], similarity_fn_name="cosine")


def train(model: SentenceTransformer, pairs: dict[str, list[str]], folder: Path, epochs: int) -> list[float]:
    """By in-batch negatives. Returns the mean loss of each epoch."""
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "training"),
        num_train_epochs=epochs,
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        router_mapping={"question": "query", "answer": "document"},  # which column takes which route
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(pairs),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def rank_of_own_answer(model: SentenceTransformer, pairs: dict[str, list[str]]) -> Tensor:
    """``[questions]``; 1 is best."""
    scores = model.similarity(model.encode_query(pairs["question"]), model.encode_document(pairs["answer"]))
    return 1 + (scores > scores.diagonal()[:, None]).sum(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="folder or name on the hub")
    parser.add_argument("--pairs", default="bundled", help="file of questions and answers; the bundled ones without")
    parser.add_argument("--shape", type=int, nargs=3, default=[2, 2, 2], metavar=("D", "H", "W"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained model")
    options = parser.parse_args()

    first: dict[str, str] = {}  # one question for each answer: others would be its negatives in the batch
    for pair in read_pairs([options.pairs]):
        first.setdefault(pair.answer, pair.question)
    answers = sorted(first)
    torch.manual_seed(0)
    held_out, known = answers[::4], [answer for i, answer in enumerate(answers) if i % 4]
    train_pairs, test_pairs = ({"question": [first[a] for a in part], "answer": part} for part in (known, held_out))

    model = with_cube(SentenceTransformer(options.model), options.shape)
    before = rank_of_own_answer(model, test_pairs)  # the untrained cube is the identity
    losses = train(model, train_pairs, options.out, options.epochs)
    after = rank_of_own_answer(model, test_pairs)
    print(f"loss {losses[0]:.4f} in the first epoch, {losses[-1]:.4f} in the last")
    print(
        f"MRR on {len(held_out)} held-out pairs: {(1 / before).mean():.3f} untrained, {(1 / after).mean():.3f} trained"
    )

    model.save(str(options.out / "model"))
    again = SentenceTransformer(str(options.out / "model"), trust_remote_code=True)
    same = (again.encode_query(test_pairs["question"]) == model.encode_query(test_pairs["question"])).all()
    print(f"saved to {options.out / 'model'}; loaded again it says {'the same' if same else 'SOMETHING ELSE'}")


if __name__ == "__main__":
    main()

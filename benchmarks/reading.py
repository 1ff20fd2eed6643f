"""``python -m benchmarks.reading RUN``: what a text costs by a run's reader, its teacher, and other static models.

From the text to its vector, tokenizer included, for one question at a time and for many texts; the texts are the run's
held-out questions, repeated. Everything has the same number of threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.compare import LOUD, machine
from cube3d import run as runs
from cube3d.run import Run
from cube_kernels.info import installed

BATCH = 256  # texts that a model reads at a time, ours has its own
ROUNDS = 5
QUESTIONS_A_ROUND = 20
SECONDS_A_ROUND = 10.0  # whoever takes longer for all texts reads the first of them alone
SETTLE_SECONDS = 0.02
TOLERANCE = 1e-4  # between two runtimes of one model

DISTRIBUTIONS = ("torch", "numpy", "transformers", "tokenizers", "sentence-transformers", "onnxruntime", "model2vec")
FACTS = ("date", "cpu", "flags", "cores", "threads", "load average", "python")

Embed = Callable[[list[str]], Any]


@dataclass
class Contender:
    """``embed`` takes texts to vectors ``[N, dim]``; ``size`` is the bytes of its weights on disk."""

    embed: Embed
    size: int


@dataclass
class Row:
    """Samples of one contender: milliseconds of single questions, and texts a second of ``texts`` at once."""

    name: str
    megabytes: float
    texts: int = 0
    milliseconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


class Setting:
    """What the contenders are made from.

    Args:
        run: of a reader.
        threads: of each.
        folder: for what is exported.
    """

    def __init__(self, run: Run, threads: int, folder: Path) -> None:
        from cube3d.teachers import open_teacher

        self.run, self.threads, self.folder = run, threads, folder
        self.given = run.settings.teachers[0].model_copy(update={"dtype": "float32", "device": "cpu"})
        self.teacher = open_teacher(self.given)

    def session(self, path: Path) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def reader_in_torch(setting: Setting) -> Contender:
    return Contender(setting.run.ask, (setting.run.model_folder / "model.safetensors").stat().st_size)


def reader_in_onnxruntime(setting: Setting) -> Contender:
    from tokenizers import Tokenizer

    from cube3d.export.onnx import export_onnx

    path = setting.folder / "reader" / "reader.onnx"
    export_onnx(setting.run, path)
    session, tokenizer = setting.session(path), Tokenizer.from_file(str(path.with_name("tokenizer.json")))
    return Contender(_batches(lambda texts: _answer(session, tokenizer.encode_batch_fast(texts))), path.stat().st_size)


def reader_in_sentence_transformers(setting: Setting) -> Contender:
    from sentence_transformers import SentenceTransformer

    from cube3d.export import export

    folder = setting.folder / "sentence-transformers"
    export(setting.run, folder, reader_only=True)
    model = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    size = (folder / "0_Reader" / "model.safetensors").stat().st_size
    return Contender(lambda texts: model.encode(texts, batch_size=BATCH), size)


def teacher_in_torch(setting: Setting) -> Contender:
    return Contender(setting.teacher.embed, sum(tensor.nbytes for tensor in _weights(setting)))


def teacher_in_onnxruntime(setting: Setting) -> Contender:
    from cube3d.export.onnx import write_graph
    from cube3d.teachers.transformer import POOLING

    model, tokenizer = setting.teacher.load()
    pooling = POOLING[setting.given.pooling]

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return torch.nn.functional.normalize(pooling(hidden, attention_mask), dim=-1)

    path = setting.folder / "teacher.onnx"
    write_graph(Pooled().eval(), path, setting.given.max_length)
    session = setting.session(path)

    def embed(texts: list[str]) -> Any:
        options = {"padding": True, "truncation": True, "max_length": setting.given.max_length}
        return _answer(session, tokenizer(texts, **options).encodings)

    return Contender(_batches(embed), path.stat().st_size)


def model2vec(setting: Setting) -> Contender:
    from model2vec.distill import distill_from_model

    model, tokenizer = setting.teacher.load()
    static = distill_from_model(model, tokenizer, device="cpu")
    return Contender(lambda texts: static.encode(texts, use_multiprocessing=False), static.embedding.nbytes)


def static_embedding(setting: Setting) -> Contender:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    table = setting.run.model.table
    with torch.no_grad():
        weights = table(torch.arange(len(table)))
    tokenizer = Tokenizer.from_file(str(setting.run.model_folder / "tokenizer.json"))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")
    return Contender(lambda texts: model.encode(texts, batch_size=BATCH), weights.nbytes)


CONTENDERS: dict[str, Callable[[Setting], Contender]] = {
    "reader, torch": reader_in_torch,
    "reader, sentence-transformers": reader_in_sentence_transformers,
    "reader, onnxruntime": reader_in_onnxruntime,
    "teacher, torch": teacher_in_torch,
    "teacher, onnxruntime": teacher_in_onnxruntime,
    "model2vec of the teacher": model2vec,
    "StaticEmbedding of the reader's table": static_embedding,
}

SAME = {
    "reader, sentence-transformers": "reader, torch",
    "reader, onnxruntime": "reader, torch",
    "teacher, onnxruntime": "teacher, torch",
}
"""Whose vectors must be another's."""


def _weights(setting: Setting) -> list[torch.Tensor]:
    model, _ = setting.teacher.load()
    return list(model.state_dict().values())


def _answer(session: Any, encoded: Sequence[Any]) -> Any:
    inputs = {
        "input_ids": np.array([row.ids for row in encoded]),
        "attention_mask": np.array([row.attention_mask for row in encoded]),
    }
    return session.run(None, inputs)[0]


def _batches(embed: Embed) -> Embed:
    """In batches of like length, so that little is padded, as the others do it."""

    def everything(texts: list[str]) -> Any:
        if len(texts) == 1:
            return embed(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        starts = range(0, len(texts), BATCH)
        found = np.concatenate([embed([texts[i] for i in order[start : start + BATCH]]) for start in starts])
        vectors = np.empty_like(found)
        vectors[order] = found
        return vectors

    return everything


def prepared(setting: Setting, texts: list[str]) -> tuple[dict[str, Contender], dict[str, str]]:
    """The contenders that there are, and why the others are not."""
    found: dict[str, Contender] = {}
    refused: dict[str, str] = {}
    vectors: dict[str, Any] = {}
    for name, make in CONTENDERS.items():
        try:
            contender = make(setting)
            vectors[name] = np.asarray(contender.embed(texts), dtype=np.float32)
        except Exception as error:  # of a package that is missing, or of an exporter that fails in its own way
            refused[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        other = vectors.get(SAME.get(name, ""))
        if other is not None and not np.abs(vectors[name] - other).max() <= TOLERANCE:
            refused[name] = f"REFUSED, other numbers: off by {np.abs(vectors[name] - other).max():.1e}"
            continue
        found[name] = contender
    return found, refused


def measure(contenders: dict[str, Contender], questions: Sequence[str], count: int) -> list[Row]:
    """Samples of all in turns, A B C, A B C, so that a change of the machine's speed meets all.

    Args:
        contenders: by name.
        questions: what is asked.
        count: texts at once, of which slow ones read the first.
    """
    texts = list(islice(cycle(questions), count))
    rows = []
    for name, contender in contenders.items():
        trial = texts[: min(count, BATCH)]
        contender.embed(trial)
        share = SECONDS_A_ROUND / _seconds(contender, trial) * len(trial)
        rows.append(Row(name, contender.size / 1e6, min(count, max(len(trial), round(share)))))
    single = cycle(questions)
    for _ in range(ROUNDS):
        asked = [next(single) for _ in range(QUESTIONS_A_ROUND)]
        for row, contender in zip(rows, contenders.values(), strict=True):
            time.sleep(SETTLE_SECONDS)
            contender.embed(asked[:1])
            row.milliseconds += [1e3 * _seconds(contender, [question]) for question in asked]
        for row, contender in zip(rows, contenders.values(), strict=True):
            time.sleep(SETTLE_SECONDS)
            row.rates.append(row.texts / _seconds(contender, texts[: row.texts]))
    return rows


def _seconds(contender: Contender, texts: list[str]) -> float:
    start = time.perf_counter()
    contender.embed(texts)
    return time.perf_counter() - start


def table(rows: Sequence[Row], refused: dict[str, str]) -> str:
    """Medians, in Markdown."""
    lines = ["| | one question, ms | texts a second | of texts | MB |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        milliseconds, rate = statistics.median(row.milliseconds), statistics.median(row.rates)
        lines.append(f"| {row.name} | {milliseconds:.3f} | {rate:,.0f} | {row.texts:,} | {row.megabytes:.1f} |")
    lines += [f"| {name} | {reason} | | | |" for name, reason in refused.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of a reader whose first teacher is a model of transformers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--texts", type=int, default=10_000, help="how many at once")
    parser.add_argument("--out", type=Path, help="write the machine and every sample as JSON")
    options = parser.parse_args()
    # Read when the pools are made: by rayon, which tokenizes, and by OpenMP.
    for variable in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(options.threads)
    torch.set_num_threads(options.threads)
    run = runs.load(options.run)
    if run.settings.model != "reader":
        parser.error(f"{options.run} is a run of a mapping; it has no reader")
    questions = [run.pairs[i].question for i in (*run.split.validation, *run.split.test)]
    here = machine()
    facts = {name: here[name] for name in FACTS} | {name: installed(name) for name in DISTRIBUTIONS}
    facts |= {"questions": len(questions), "rounds": ROUNDS}
    for key, value in facts.items():
        print(f"{key}: {value}")
    if os.getloadavg()[0] > 0.3:
        print(LOUD)
    with tempfile.TemporaryDirectory() as folder:
        contenders, refused = prepared(Setting(run, options.threads, Path(folder)), questions[:BATCH])
        rows = measure(contenders, questions, options.texts)
    print(f"\n{table(rows, refused)}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": facts, "rows": [asdict(row) for row in rows], "refused": refused}
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

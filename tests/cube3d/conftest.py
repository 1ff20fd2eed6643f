"""A small teacher-free world: random vectors in which answers are a fixed map of their questions; and a whole run
of a tiny teacher and a tiny cube."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
import yaml

from cube3d import run as runs
from cube3d.cli import main
from cube3d.config import parse_settings
from cube3d.evaluation.evaluate import evaluate
from cube3d.pairs import Pair
from cube3d.vectors import Part, Parts

DIM = 24

CUBE = {"shape": [2, 2, 2], "channels": 4, "hidden": 8, "steps": 2}
TRAINING = {"epochs": 4, "batch_size": 8, "patience": 4, "learning_rate": 0.01}
TOPICS = [
    "tree",
    "river",
    "stone",
    "cloud",
    "paper",
    "glass",
    "wheel",
    "bread",
    "chair",
    "music",
    "light",
    "water",
    "metal",
    "horse",
    "paint",
]


def make_part(groups, offset: int) -> Part:
    """Two questions a group; the answer is a rotation of the group's direction, questions are near it."""
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(9))).Q
    generator = torch.Generator().manual_seed(offset)
    centers = F.normalize(torch.randn(groups, DIM, generator=generator), dim=-1)
    group = torch.arange(groups).repeat_interleave(2) + 1000 * offset
    question = F.normalize(centers[group - 1000 * offset] + 0.02 * torch.randn(2 * groups, DIM, generator=generator))
    bank = F.normalize(0.8 * centers + 0.6 * centers @ rotation, dim=-1)
    answer = bank[group - 1000 * offset]
    pairs = [Pair(f"question {offset}.{i}?", f"answer {offset}.{i // 2}", f"made:{i}") for i in range(2 * groups)]
    return Part(
        pairs,
        [pair.prompt for pair in pairs],
        question,
        answer,
        group,
        bank,
        group[::2],
        [f"answer {offset}.{i}" for i in range(groups)],
    )


@pytest.fixture(scope="session")
def parts() -> Parts:
    return Parts(make_part(24, 1), make_part(10, 2), make_part(12, 3))


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory):
    """The folder of a random BERT with 16 dimensions and a tokenizer of single characters."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    characters = "abcdefghijklmnopqrstuvwxyz?."
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("teacher")
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Teacher vectors of tests stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBE3D_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def make_run(tiny_teacher):
    """Makes the folder of a finished run whose cube, of random weights, is not the identity; nothing is trained."""

    def make(folder, pairs_file, mixture="none", **teacher):
        values = {
            "model": "mapping",
            "data": {"pairs": [str(pairs_file)], "validation": 0.25, "test": 0.25},
            "teachers": [{"model": str(tiny_teacher), "max_length": 64, **teacher}],
            "cube": {"shape": [2, 2, 2], "channels": 4, "hidden": 8, "steps": 2},
            "mixture": mixture,
        }
        run = runs.start(folder, parse_settings(values, "test"))
        runs._write_inputs(run, runs.fit_teachers(run))
        run.save_answers()
        model = runs.new_cube(run.settings, 16)
        torch.nn.init.normal_(model.mapping.readout, std=0.1)
        if mixture == "ridge":
            model.set_ridge(torch.randn(16, 16), torch.randn(16), 0.5)
        model.save(run.model_folder)
        return run

    return make


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    records = [
        {"question": f"{ask} {topic}?", "answer": f"The {topic} is known by its {topic} name.", "domain": "test"}
        for topic in TOPICS
        for ask in ("what is a", "tell me about the")
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="session")
def config_file(pairs_file, tiny_teacher):
    path = pairs_file.with_name("config.yaml")
    values = {
        "model": "mapping",
        "data": {"pairs": [str(pairs_file)], "validation": 0.2, "test": 0.3},
        "teachers": [{"model": str(tiny_teacher), "max_length": 16}],
        "cube": CUBE,
        "training": TRAINING,
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="session")
def trained_run(config_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--config", str(config_file), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def evaluated_run(trained_run):
    assert main(["evaluate", str(trained_run)]) == 0
    return trained_run


@pytest.fixture(scope="session")
def two_runs(evaluated_run, config_file, tmp_path_factory):
    """The evaluated run, of seed 0, and one of seed 1."""
    second = tmp_path_factory.mktemp("runs") / "second"
    assert main(["train", "--config", str(config_file), "--out", str(second), "seed=1"]) == 0
    evaluate(runs.load(second))
    return [evaluated_run, second]


READER = {"max_length": 32, "channels": 8, "hidden": 12, "steps": 2}


@pytest.fixture(scope="session")
def reader_config_file(pairs_file, tiny_teacher):
    path = pairs_file.with_name("reader.yaml")
    values = {
        "data": {"pairs": [str(pairs_file)], "validation": 0.2, "test": 0.3},
        "teachers": [{"model": str(tiny_teacher), "max_length": 64}],
        "reader": READER,
        "texts": {"sources": ["pairs", "docs:json"], "count": 60},
        "distillation": {"epochs": 2, "batch_size": 16},
        "training": {**TRAINING, "epochs": 2},
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="session")
def reader_run(reader_config_file, tmp_path_factory):
    """A trained run of a tiny reader."""
    folder = tmp_path_factory.mktemp("runs") / "reader"
    assert main(["train", "--config", str(reader_config_file), "--out", str(folder)]) == 0
    return folder


# An interpreter that ends before gloo's threads do aborts, one time in many.
ENDS_ITS_PROCESS_GROUP = """
import sys, torch
from cube3d.cli import main
status = main(sys.argv[1:])
sys.exit("the process group is still open" if torch.distributed.is_initialized() else status)
"""


def in_two_processes(arguments):
    """What the first prints of a command that torchrun starts in two processes; the other prints nothing."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command = [sys.executable, "-c", ENDS_ITS_PROCESS_GROUP, *arguments]
    done = subprocess.run([*torchrun, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def train_in_one_and_two_processes(arguments, one, two):
    """Trains twice with the arguments: here into the folder ``one``, by torchrun into ``two``."""
    assert main([*arguments, "--out", str(one)]) == 0
    assert in_two_processes([*arguments, "--out", str(two)]).count("trained: ") == 1

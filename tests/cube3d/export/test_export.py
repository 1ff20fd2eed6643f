"""Export: a folder that sentence-transformers loads without cube3d, and that says what the run says."""

import importlib
import json
import shutil
import sys
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from cube3d.cli import main
from cube3d.errors import UserError
from cube_kernels import EmbeddingCube, Lattice, Rule
from cube_kernels.lattice import BOUNDARIES

sentence_transformers = pytest.importorskip("sentence_transformers", reason="export writes its models")

from cube3d.export.sentence_transformer import export, plain_cube  # noqa: E402

SUBJECTS = ["tree", "river", "stone", "cloud", "paper", "glass", "wheel", "bread"]
TEXTS = ["what is a river?", "stone", "a text that no run has seen, and " * 20]


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    records = [{"question": f"what is a {s}?", "answer": f"the {s} has its name."} for s in SUBJECTS]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(autouse=True)
def own_modules(tmp_path, monkeypatch):
    """Python files of models are run from a copy; it is not to lie in the user's cache."""
    folder = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", folder)
    monkeypatch.syspath_prepend(folder)
    yield
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def load(folder):
    return sentence_transformers.SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")


def exported(run, folder):
    assert main(["export", str(run.folder), str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def run(make_run, pairs_file, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", pairs_file)


def assert_says_what_the_run_says(model, run):
    teacher = run.ensemble.answers(TEXTS)
    question = F.normalize(run.ask(TEXTS), dim=-1)
    assert (question - teacher).abs().max() > 0.01, "the cube must change something for this to mean anything"
    queries, documents = (F.normalize(torch.from_numpy(encode(TEXTS)), dim=-1) for encode in routes(model))
    assert torch.allclose(queries, question, atol=2e-6)
    assert torch.allclose(documents, teacher, atol=2e-6)


def routes(model):
    return model.encode_query, model.encode_document


def test_the_exported_model_says_what_the_run_says_without_our_packages(run, tmp_path, monkeypatch):
    folder = exported(run, tmp_path / "model")
    with monkeypatch.context() as patch:
        for package in ("cube3d", "cube_kernels"):
            patch.setitem(sys.modules, package, None)
        model = load(folder)
        kinds = {type(module).__module__.split(".")[0] for module in model.modules()}
    assert not kinds & {"cube3d", "cube_kernels"}
    assert model.get_embedding_dimension() == 16
    assert_says_what_the_run_says(model, run)


def test_the_exported_folder_holds_safetensors_and_one_file_of_python(run, tmp_path):
    folder = exported(run, tmp_path / "model")
    suffixes = [path.suffix for path in folder.rglob("*") if path.is_file()]
    assert set(suffixes) == {".json", ".safetensors", ".py", ".md"}
    assert suffixes.count(".py") == 1
    assert "trust_remote_code" in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="trust_remote_code"):
        sentence_transformers.SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("pooling", ["cls", "last"])
def test_every_pooling_is_exported(pooling, make_run, pairs_file, tmp_path):
    run = make_run(tmp_path / "run", pairs_file, pooling=pooling)
    assert_says_what_the_run_says(load(exported(run, tmp_path / "model")), run)


def test_the_mixture_is_exported(make_run, pairs_file, tmp_path):
    run = make_run(tmp_path / "run", pairs_file, mixture="ridge")
    model = load(exported(run, tmp_path / "model"))
    assert_says_what_the_run_says(model, run)
    vectors = run.ensemble.questions(TEXTS)
    alone, mixed = (F.normalize(predict(vectors), dim=-1) for predict in (run.model.alone, run.model.map))
    assert (alone - mixed).abs().max() > 0.1


def test_a_decoder_without_a_padding_token_is_exported(make_run, pairs_file, tiny_teacher, tmp_path):
    from transformers import AutoTokenizer, LlamaConfig, LlamaModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaModel(LlamaConfig(vocab_size=64, initializer_range=0.5, **sizes)).save_pretrained(tmp_path / "llama")
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(tmp_path / "llama")
    run = make_run(tmp_path / "run", pairs_file, model=str(tmp_path / "llama"), pooling="last")
    assert_says_what_the_run_says(load(exported(run, tmp_path / "model")), run)


def test_a_run_of_several_teachers_is_not_exported(run, tmp_path):
    settings = run.settings.model_copy(update={"teachers": run.settings.teachers * 2})
    with pytest.raises(UserError, match="has 2 teachers; only a run of one can be exported"):
        export(replace(run, settings=settings), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_exported_model_can_be_trained_on_and_saved_again(run, tmp_path):
    model = load(exported(run, tmp_path / "model"))
    features = model.preprocess(TEXTS, task="query")
    model(features, task="query")["sentence_embedding"].square().sum().backward()
    cube = model[0].sub_modules["query"][-1]
    assert all(parameter.grad.any() for parameter in cube.parameters())
    with torch.no_grad():
        cube.readout += 0.1
    model.save(str(tmp_path / "again"))
    again = load(tmp_path / "again")
    assert (again.encode_query(TEXTS) == model.encode_query(TEXTS)).all()
    assert (again.encode_query(TEXTS) != load(tmp_path / "model").encode_query(TEXTS)).any()


def assert_plain_is_the_same(cube):
    for parameter in cube.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(4, cube.dim)
    with torch.no_grad():
        expected, found = cube(x), plain_cube(cube)({"sentence_embedding": x})["sentence_embedding"]
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, x, atol=0.01)


@pytest.mark.parametrize("neighborhood", ["von_neumann", "moore"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_plain_cube_is_the_cube(boundary, neighborhood):
    """For every perception, update, activation and lift."""
    torch.manual_seed(0)
    lattice = Lattice((2, 3, 4), 5, neighborhood, 1, boundary)
    updates = ["residual", "gated", "leaky", "replace"]
    activations = ["relu", "gelu", "silu", "tanh"]
    for perception, (update, activation), lift in product(
        ["depthwise", "gather"], zip(updates, activations, strict=True), ["per_cell", "shared", "dense"]
    ):
        filters = 2 if perception == "depthwise" else 1
        rule = Rule(perception=perception, filters=filters, hidden=7, update=update, activation=activation)
        assert_plain_is_the_same(EmbeddingCube(48, lattice, rule, 3, lift=lift, backend="reference"))


@pytest.mark.parametrize("lift", ["per_cell", "shared", "dense"])
@pytest.mark.parametrize(
    "regions",
    [
        {"input": "front", "output": "back"},
        {"input": "back", "output": "corners"},
        {"input": "front", "output": "volume", "proportion": 0.5},
    ],
)
def test_the_plain_cube_has_the_regions_and_the_order_of_the_cube(regions, lift):
    torch.manual_seed(0)
    order = None if lift == "dense" else torch.randperm(48)
    rule, lattice = Rule(hidden=7, update="gated"), Lattice((2, 4, 3), 5)
    assert_plain_is_the_same(
        EmbeddingCube(48, lattice, rule, 8, lift=lift, backend="reference", order=order, **regions)
    )


# Refusals


def refusal(capsys, *arguments):
    assert main(["export", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_an_export_that_differs_from_the_run_is_refused(run, tmp_path, capsys, monkeypatch):
    """A rule that the plain cube does not know would show like this."""

    def lacks_a_step(cube, mixture):
        plain = plain_cube(cube, mixture)
        plain.steps -= 1
        return plain

    monkeypatch.setattr("cube3d.export.sentence_transformer.plain_cube", lacks_a_step)
    assert "query vectors differ from the run's by" in refusal(capsys, run.folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_that_exists_is_not_written_over(run, tmp_path, capsys):
    assert "exists; name a new folder" in refusal(capsys, run.folder, tmp_path)


def test_a_missing_package_is_named(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert "pip install cube-kernels[sentence-transformers]" in refusal(capsys, run.folder, tmp_path / "model")


def test_a_run_that_is_not_trained_is_refused(make_run, pairs_file, tmp_path, capsys):
    run = make_run(tmp_path / "run", pairs_file)
    shutil.rmtree(run.model_folder)
    assert "training has not ended" in refusal(capsys, run.folder, tmp_path / "model")

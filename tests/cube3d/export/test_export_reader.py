"""A reader's exports say what the run says: the plain module, the folder of sentence-transformers, the ONNX graph."""

import importlib
import shutil
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from cube3d import run as runs
from cube3d.cli import main
from cube3d.config import ReaderSettings, dump_settings, parse_section
from cube3d.errors import UserError
from cube3d.files import save_text
from cube3d.reader.model import ReaderConfig, ReaderModel
from cube_kernels import Alive, Rule
from cube_kernels.lattice import BOUNDARIES

sentence_transformers = pytest.importorskip("sentence_transformers", reason="export writes its models")

from cube3d.export.cube import ACTIVATIONS, SQUASHES, UPDATES  # noqa: E402
from cube3d.export.plain import plain_reader, plain_rule  # noqa: E402
from cube3d.export.sentence_transformer import export  # noqa: E402

TEXTS = ["what is a river?", "stone", "q", "a text that no run has seen, and " * 20]

VARIANTS = [
    {},
    {"storage": "int8", "cells": [2, 3], "neighborhood": "moore", "radius": 1, "boundary": "periodic", "width": 12},
    {"storage": "float16", "context": "none"},
    {"perception": "gather", "filters": 1, "update": "leaky", "cells": [3, 1], "boundary": "absorbing"},
]


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


def random_reader(vocabulary, dim, words, settings):
    """Weights at random, so that every part of the reader matters; ``words`` is the tokenizer."""
    trained = settings.model_copy(update={"storage": "float32"})
    model = ReaderModel(ReaderConfig(vocabulary=vocabulary, dim=dim, reader=trained.model_dump()))
    model.tokenizer = words
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.stored(settings.storage)


@pytest.fixture
def make_reader_run(reader_run, tmp_path):
    """The trained run with another reader, of random weights."""

    def make(**reader):
        torch.manual_seed(0)
        folder = tmp_path / "run"
        shutil.copytree(reader_run, folder, ignore=shutil.ignore_patterns("training", "distilled"))
        run = runs.load(folder)
        wanted = parse_section(ReaderSettings, {**run.settings.reader.model_dump(), **reader}, "test")
        settings = run.settings.model_copy(update={"reader": wanted})
        trained = run.model
        model = random_reader(trained.config.vocabulary, trained.config.dim, trained.tokenizer, wanted)
        save_text(run.config_file, dump_settings(settings))
        model.save(run.model_folder)
        return runs.load(folder)

    return make


def load(folder):
    return sentence_transformers.SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")


def exported(run, target, *options):
    assert main(["export", str(run.folder), str(target), *options]) == 0
    return target


def refusal(capsys, *arguments):
    assert main(["export", *map(str, arguments)]) == 2
    return capsys.readouterr().err


# The plain module


@pytest.mark.parametrize(
    "neighborhood", [("line", 2), ("moore", 1), ("von_neumann_2d", 2), ([[0, 0, -3], [1, -1, 1]], 1)]
)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_plain_reader_is_the_reader(boundary, neighborhood, reader_run):
    """For every perception, update, activation and storage, one cell a token and several, texts of other lengths."""
    torch.manual_seed(0)
    tokenizer = runs.load(reader_run).model.tokenizer
    updates = zip(["residual", "gated", "leaky", "replace"], ["relu", "gelu", "silu", "tanh"], strict=True)
    storages = ["float32", "float16", "int8", "float32"]
    shape = {"neighborhood": neighborhood[0], "radius": neighborhood[1], "boundary": boundary}
    sizes = {"channels": 5, "hidden": 7, "steps": 3, "max_length": 16, "width": 12}
    lengths = torch.tensor([9, 1, 6, 0])
    mask = (torch.arange(9) < lengths[:, None]).long()
    compared = 0
    for (update, activation), storage, perception, cells in product(
        updates, storages, ["depthwise", "gather"], [[1, 1], [2, 3]]
    ):
        if boundary == "reflecting" and cells == [1, 1] and neighborhood[0] != "line":
            continue  # a mirror needs two cells
        rule = {"perception": perception, "filters": 2 if perception == "depthwise" else 1}
        options = {"update": update, "activation": activation, "storage": storage, "cells": cells}
        model = random_reader(30, 9, tokenizer, ReaderSettings(**shape, **sizes, **rule, **options))
        numbers = torch.randint(30, (4, 9))
        with torch.no_grad():
            expected, found = model.read(numbers, mask), plain_reader(model).read(numbers, mask)
        assert torch.allclose(found, expected, atol=1e-5), (update, storage, perception, cells)
        compared += 1
    assert compared >= 32


def test_padding_and_neighbors_in_the_batch_change_nothing(reader_run):
    model = plain_reader(runs.load(reader_run).model)
    numbers = torch.tensor([[5, 6, 7, 0, 0, 0, 0], [8, 9, 5, 4, 6, 7, 8]])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    alone = model.read(numbers[:1, :3], mask[:1, :3])
    assert torch.allclose(model.read(numbers, mask)[:1], alone, atol=1e-6)


@pytest.mark.parametrize(
    ("option", "value"),
    [("fire_rate", 0.5), ("drive", 2), ("clamp", (-1.0, 1.0)), ("alive", Alive(0)), ("own_state", False)],
)
def test_a_rule_that_the_plain_step_does_not_know_is_refused_by_the_option(option, value):
    with pytest.raises(UserError, match=f"the rule's {option} is"):
        plain_rule(replace(Rule(), **{option: value}))


@pytest.mark.parametrize(("option", "table"), [("activation", ACTIVATIONS), ("squash", SQUASHES), ("update", UPDATES)])
def test_so_is_a_name_that_it_does_not_know(option, table, monkeypatch):
    plain_rule(Rule())
    monkeypatch.delitem(table, str(getattr(Rule(), option)))
    with pytest.raises(UserError, match=f"the rule's {option} is '{getattr(Rule(), option)}'"):
        plain_rule(Rule())


# sentence-transformers


@pytest.mark.parametrize("reader", VARIANTS)
def test_the_exported_folder_says_what_the_run_says_without_our_packages(
    reader, make_reader_run, tmp_path, monkeypatch
):
    run = make_reader_run(**reader)
    folder = exported(run, tmp_path / "model")
    with monkeypatch.context() as patch:
        for package in ("cube3d", "cube_kernels"):
            patch.setitem(sys.modules, package, None)
        model = load(folder)
        kinds = {type(module).__module__.split(".")[0] for module in model.modules()}
    assert not kinds & {"cube3d", "cube_kernels"}
    teacher, reader_says = run.ensemble.answers(TEXTS), run.ask(TEXTS)
    assert (teacher - reader_says).abs().max() > 0.05, "the routes must differ for this to mean anything"
    assert np.allclose(model.encode_query(TEXTS), reader_says, atol=1e-5)
    assert np.allclose(model.encode_document(TEXTS), teacher, atol=1e-5)
    assert "Answers go through the language model" in (folder / "README.md").read_text()


def test_a_reader_alone_is_small_and_reads_both(make_reader_run, tmp_path, capsys):
    run = make_reader_run(storage="int8")
    folder = exported(run, tmp_path / "model", "--reader-only")
    assert "without a teacher" in capsys.readouterr().out
    suffixes = [path.suffix for path in folder.rglob("*") if path.is_file()]
    assert (suffixes.count(".py"), suffixes.count(".safetensors")) == (1, 1)
    model = load(folder)
    assert model.get_embedding_dimension() == 16
    for encode in (model.encode, model.encode_query, model.encode_document):
        assert np.allclose(encode(TEXTS), run.ask(TEXTS), atol=1e-5)
    assert "not in this folder" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("storage", "bytes_a_number"), [("float32", 4), ("float16", 2), ("int8", 1)])
def test_the_table_has_its_own_number_format_on_disk(storage, bytes_a_number, make_reader_run, tmp_path):
    from safetensors import safe_open

    run = make_reader_run(storage=storage)
    folder = exported(run, tmp_path / "model", "--reader-only")
    with safe_open(folder / "0_Reader" / "model.safetensors", "pt") as file:
        assert file.get_tensor("table").element_size() == bytes_a_number


def test_a_teacher_that_cannot_be_exported_is_left_out(make_reader_run, tmp_path):
    run = make_reader_run()
    settings = run.settings.model_copy(update={"teachers": run.settings.teachers * 2})
    assert export(replace(run, settings=settings), tmp_path / "model") == "reader"
    assert np.allclose(load(tmp_path / "model").encode(TEXTS), run.ask(TEXTS), atol=1e-5)


def test_a_half_width_teacher_is_exported_in_float32(make_run, pairs_file, tmp_path):
    run = make_run(tmp_path / "run", pairs_file, dtype="bfloat16")
    model = load(exported(run, tmp_path / "model"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert np.allclose(model.encode_document(TEXTS), run.ensemble.answers(TEXTS), atol=0.02)


@pytest.mark.parametrize("reader", [{}, {"context": "none"}])
def test_a_text_without_a_known_token_is_zero_and_ends_no_batch(reader, make_reader_run, tmp_path):
    run = make_reader_run(**reader)
    model = load(exported(run, tmp_path / "model", "--reader-only"))
    with pytest.warns(UserWarning, match="knows no token of '§ §', ''; such a text's vector is zero"):
        found = model.encode(["river", "", "tell me about the wheel?", "§ §"])
    assert np.allclose(found[[0, 2]], run.ask(["river", "tell me about the wheel?"]), atol=1e-6)
    assert not found[[1, 3]].any()
    with pytest.warns(UserWarning, match="knows no token"):
        alone = model.encode(["", ""])
    assert alone.shape == (2, 16)
    assert not alone.any()


def test_an_exported_reader_can_be_trained_on_and_saved_again(make_reader_run, tmp_path):
    model = load(exported(make_reader_run(), tmp_path / "model", "--reader-only"))
    features = model.preprocess(TEXTS)
    model(features)["sentence_embedding"][:, 0].sum().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    with torch.no_grad():
        model[0].lift_weight += 0.1
    model.save(str(tmp_path / "again"))
    again = load(tmp_path / "again")
    assert (again.encode(TEXTS) == model.encode(TEXTS)).all()
    assert (again.encode(TEXTS) != load(tmp_path / "model").encode(TEXTS)).any()


@pytest.mark.parametrize("target", ["model", "reader.onnx"])
@pytest.mark.parametrize("context", ["transformer", "convolutions"])
def test_contexts_that_are_there_to_be_compared_with_are_refused_by_name(
    context, target, make_reader_run, tmp_path, capsys
):
    run = make_reader_run(context=context, channels=8)
    assert f"reader.context is {context!r}" in refusal(capsys, run.folder, tmp_path / target)
    assert not (tmp_path / target).exists()


def test_a_mapping_has_no_reader_to_be_alone(make_run, pairs_file, tmp_path, capsys):
    run = make_run(tmp_path / "run", pairs_file)
    assert "which has no reader" in refusal(capsys, run.folder, tmp_path / "model", "--reader-only")


@pytest.mark.parametrize("target", ["model", "reader.onnx"])
def test_an_export_that_differs_from_the_run_is_refused(target, make_reader_run, tmp_path, capsys, monkeypatch):
    """Something that the plain reader does not know would show like this."""

    def lacks_a_step(model):
        plain = plain_reader(model)
        plain.steps -= 1
        return plain

    for module in ("sentence_transformer", "onnx"):
        monkeypatch.setattr(f"cube3d.export.{module}.plain_reader", lacks_a_step)
    run = make_reader_run()
    assert "vectors differ from the run's by" in refusal(capsys, run.folder, tmp_path / "out" / target)
    assert list((tmp_path / "out").iterdir()) == []


# ONNX


def graph_of(folder):
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs what is exported")
    session = onnxruntime.InferenceSession(str(folder / "reader.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def read(numbers, mask):
        return session.run(["sentence_embedding"], {"input_ids": np.array(numbers), "attention_mask": np.array(mask)})[
            0
        ]

    def embed(texts):
        rows = tokenizer.encode_batch(texts)
        return read([row.ids for row in rows], [row.attention_mask for row in rows])

    return session, read, embed


@pytest.mark.parametrize("reader", VARIANTS)
def test_the_graph_says_what_the_run_says(reader, make_reader_run, tmp_path):
    """Any batch, any length up to the longest, however far a text is padded and with whatever."""
    run = make_reader_run(**reader)
    _, read, embed = graph_of(exported(run, tmp_path / "out" / "reader.onnx").parent)
    for texts in (TEXTS, TEXTS[:1], ["a"], ["abc"], ["x" * 500], [*TEXTS, *TEXTS[:3]]):
        assert np.allclose(embed(texts), run.ask(texts), atol=1e-5)
    numbers, mask = [[5, 6, 7]], [[1, 1, 1]]
    padded = read([[5, 6, 7, 0, 9, 8, 11, 3]], [[1, 1, 1, 0, 0, 0, 0, 0]])
    assert np.allclose(read(numbers, mask), padded, atol=1e-6)


def test_the_graph_has_standard_operators_alone_and_says_nothing_of_this_machine(make_reader_run, tmp_path):
    onnx = pytest.importorskip("onnx", reason="reads what is exported")
    run = make_reader_run(storage="int8", cells=[2, 2], boundary="replicate")
    file = exported(run, tmp_path / "out" / "reader.onnx")
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert not any(node.op_type in ("Loop", "If", "Scan") for node in model.graph.node)
    for value, (name, kind, axes) in zip(
        [*model.graph.input, *model.graph.output],
        [
            ("input_ids", onnx.TensorProto.INT64, ["batch", "length"]),
            ("attention_mask", onnx.TensorProto.INT64, ["batch", "length"]),
            ("sentence_embedding", onnx.TensorProto.FLOAT, ["batch", 16]),
        ],
        strict=True,
    ):
        tensor = value.type.tensor_type
        assert (value.name, tensor.elem_type) == (name, kind)
        assert [axis.dim_param or axis.dim_value for axis in tensor.shape.dim] == axes
    table = next(i for i in model.graph.initializer if list(i.dims) == [run.model.config.vocabulary, 16])
    assert table.data_type == onnx.TensorProto.INT8
    assert b"cube3d" not in file.read_bytes()


def test_the_tokenizer_beside_the_graph_cuts_pads_and_adds_nothing(make_reader_run, tmp_path):
    run = make_reader_run()
    file = exported(run, tmp_path / "out" / "reader.onnx")
    rows = Tokenizer.from_file(str(file.with_name("tokenizer.json"))).encode_batch(["ab", "c" * 99])
    first, second = run.model.tokenizer.encode(["ab", "c" * 99])
    assert rows[0].ids == first + [0] * 30
    assert rows[0].attention_mask == [1, 1] + [0] * 30
    assert rows[1].ids == second


def test_a_mapping_is_not_exported_to_onnx(make_run, pairs_file, tmp_path, capsys):
    run = make_run(tmp_path / "run", pairs_file)
    assert "only a reader is exported to ONNX" in refusal(capsys, run.folder, tmp_path / "reader.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(package, make_reader_run, tmp_path, capsys, monkeypatch):
    run = make_reader_run()
    monkeypatch.setitem(sys.modules, package, None)
    err = refusal(capsys, run.folder, tmp_path / "out" / "reader.onnx")
    assert f"needs {package}; `pip install cube-kernels[onnx]`" in err


@pytest.mark.parametrize("there", ["reader.onnx", "tokenizer.json"])
def test_files_that_exist_are_not_written_over(there, reader_run, tmp_path, capsys):
    (tmp_path / there).write_text("mine")
    assert f"{there}: exists" in refusal(capsys, reader_run, tmp_path / "reader.onnx")
    assert [path.read_text() for path in tmp_path.iterdir() if path.is_file()] == ["mine"]

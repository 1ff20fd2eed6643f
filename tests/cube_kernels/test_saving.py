"""A saved layer comes back as it was, on any lattice; anything else that a file may hold is one clear error."""

import json
import os
import pickle
import stat

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cube_kernels import Alive, CubeLayer, Lattice, Rule, rules
from cube_kernels.update_rule import ACTIVATIONS, UPDATES
from tests.conftest import PADDING

SHAPE = (2, 4, 5)
RULES = [
    *(Rule(update=update, activation=a, hidden=6) for update in UPDATES for a in ACTIVATIONS),
    Rule(perception="gather", hidden=6, drive=3),
    Rule(filters=2, fixed_filters=("identity", "sobel_d"), own_state=False, hidden=6),
    Rule(filters=0, fixed_filters=("laplacian",), own_state=False, hidden=0, step_size=0.1),
    Rule(hidden=6, fire_rate=0.5, fire_rescale=True, clamp=(-1.0, float("inf")), immutable_channels=(1,)),
    Rule(hidden=6, alive=Alive(2, threshold=-float("inf"), when="after", dead_value=0.5)),
]


def run(layer, shape=SHAPE):
    """Two steps from a state that its shape alone decides."""
    like = next(layer.parameters(), torch.empty(0))
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(2, *shape, layer.lattice.channels, generator=draw).to(like.dtype)
    drive = torch.ones(1, *shape, layer.rule.drive, dtype=like.dtype) if layer.rule.drive else None
    return layer(x, drive, steps=2, seed=3 if layer.rule.fire_rate < 1 else None)


def assert_same(layer, again):
    assert (again.lattice, again.rule, again.steps) == (layer.lattice, layer.rule, layer.steps)
    given, found = dict(layer.named_parameters()), dict(again.named_parameters())
    assert given.keys() == found.keys()
    for name, parameter in given.items():
        assert torch.equal(parameter, found[name])
        assert parameter.dtype == found[name].dtype
        assert parameter.requires_grad == found[name].requires_grad
    assert torch.equal(run(layer, layer.lattice.shape), run(again, layer.lattice.shape))


@pytest.mark.parametrize("rule", RULES, ids=range(len(RULES)))
def test_every_rule_comes_back(rule, tmp_path):
    layer = CubeLayer(Lattice(SHAPE, 4, "moore"), rule, steps=7)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    layer.save(tmp_path / "rule.safetensors")
    assert_same(layer, CubeLayer.load(tmp_path / "rule.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_comes_back(dtype, tmp_path):
    layer = CubeLayer(Lattice(SHAPE, 4), Rule(hidden=6), steps=1).to(dtype)
    layer.save(tmp_path / "rule.safetensors")
    assert_same(layer, CubeLayer.load(tmp_path / "rule.safetensors"))


@pytest.mark.parametrize("boundary", PADDING)
def test_every_boundary_and_listed_offsets_come_back(boundary, tmp_path):
    offsets = ((0, 0, 0), (1, 0, 0), (0, -1, 2))
    layer = CubeLayer(Lattice(SHAPE, 4, offsets, boundary=boundary), Rule(hidden=6), steps=1)
    layer.save(str(tmp_path / "rule.safetensors"))
    assert_same(layer, CubeLayer.load(str(tmp_path / "rule.safetensors")))


@pytest.mark.parametrize(
    "layer",
    [
        rules.classic_cell(SHAPE, steps=2),
        rules.growing_nca(SHAPE),
        rules.life(SHAPE, "B5/S45"),
        rules.heat(SHAPE, 1.0, 0.1),
    ],
    ids=["classic_cell", "growing_nca", "life", "heat"],
)
def test_ready_rules_come_back_and_constants_stay_constants(layer, tmp_path):
    layer.save(tmp_path / "rule.safetensors")
    assert_same(layer, CubeLayer.load(tmp_path / "rule.safetensors"))


def test_a_rule_moves_to_another_lattice_with_its_parameters(tmp_path):
    layer = CubeLayer(Lattice(SHAPE, 4, "moore", boundary="periodic"), Rule(hidden=6), steps=3)
    layer.save(tmp_path / "rule.safetensors")
    large = layer.on((4, 8, 5))
    assert large.lattice == Lattice((4, 8, 5), 4, "moore", boundary="periodic")
    # On a torus, a state repeated twice along an axis evolves as the state does.
    x = torch.randn(2, *SHAPE, 4)
    assert torch.allclose(large(x.repeat(1, 2, 2, 1, 1)), layer(x).repeat(1, 2, 2, 1, 1), atol=1e-6)
    assert_same(large, CubeLayer.load(tmp_path / "rule.safetensors", shape=(4, 8, 5)))


def test_layers_on_two_lattices_train_one_rule():
    layer = CubeLayer(Lattice(SHAPE, 4), Rule(hidden=6), steps=2, backend="reference", checkpoint_every=2)
    large = layer.on((3, 6, 7))
    assert (large.backend, large.checkpoint_every) == ("reference", 2)
    torch.optim.SGD(large.parameters(), lr=0.1).zero_grad()
    run(large, (3, 6, 7)).square().sum().backward()
    torch.optim.SGD(large.parameters(), lr=0.1).step()
    assert_same(layer, large.on(SHAPE))
    assert all(a is b for a, b in zip(layer.parameters(), large.parameters(), strict=True))


def test_loading_and_moving_draw_nothing(tmp_path):
    layer = CubeLayer(Lattice(SHAPE, 4), Rule(hidden=6), steps=1)
    layer.save(tmp_path / "rule.safetensors")
    before = torch.get_rng_state()
    CubeLayer.load(tmp_path / "rule.safetensors", shape=(2, 2, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_shape_that_is_none_is_named():
    layer = CubeLayer(Lattice(SHAPE, 4), Rule(hidden=6), steps=1)
    with pytest.raises(ValueError, match="shape"):
        layer.on((2, 3))


# Other files


@pytest.fixture
def saved(tmp_path):
    """A file, and how to write it again with other metadata or tensors."""
    path = tmp_path / "rule.safetensors"
    CubeLayer(Lattice(SHAPE, 4), Rule(hidden=6), steps=1).save(path)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def spoil(named=None, **changes):
        save_file(tensors if named is None else named, path, {**metadata, **changes})
        return path

    return path, spoil


def test_a_file_of_another_version_says_both(saved):
    with pytest.raises(ValueError, match="is of version 2; this cube_kernels reads version 1"):
        CubeLayer.load(saved[1](version="2"))


def test_safetensors_of_something_else_are_no_layer(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors is a safetensors file of something else"):
        CubeLayer.load(tmp_path / "other.safetensors")


def test_files_that_are_no_safetensors_are_refused_without_running_them(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    (tmp_path / "trap.pt").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "empty.pt").touch()
    for name in ("trap.pt", "empty.pt"):
        with pytest.raises(ValueError, match=f"{name} is no whole safetensors file"):
            CubeLayer.load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(FileNotFoundError):
        CubeLayer.load(tmp_path / "nothing.safetensors")


def test_a_file_cut_short_is_refused(saved):
    path, _ = saved
    whole = path.read_bytes()
    for length in (4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="no whole safetensors file"):
            CubeLayer.load(path)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("lattice", "{}"),
        ("lattice", "nonsense"),
        ("rule", json.dumps({"alive": None, "hidden": -1})),
        ("rule", json.dumps({"alive": None, "unheard_of": 1})),
        ("steps", "many"),
    ],
)
def test_metadata_that_describe_no_layer_are_named(field, text, saved):
    with pytest.raises(ValueError, match="does not say what layer it holds"):
        CubeLayer.load(saved[1](**{field: text}))


def test_tensors_that_are_not_the_rules_are_named(saved):
    with pytest.raises(ValueError, match=r"holds tensors of shapes .*\(3, 3\).*, but its rule has .*filters"):
        CubeLayer.load(saved[1]({"hidden_weight": torch.ones(3, 3)}))


def test_who_may_read_a_file_is_for_the_umask_to_say(tmp_path):
    before = os.umask(0o027)
    try:
        CubeLayer(Lattice((2, 2, 2), 3), Rule(hidden=4), 2).save(tmp_path / "layer.safetensors")
    finally:
        os.umask(before)
    (file,) = tmp_path.iterdir()  # and nothing else is left
    assert stat.S_IMODE(file.stat().st_mode) == 0o640

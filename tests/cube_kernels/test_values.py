"""Lattice, Rule and Alive are plain values: made of whatever stands for a number, told apart by nothing else, saved and
loaded anywhere."""

import copy
import io
import itertools
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from cube_kernels import (
    Alive,
    CubeLayer,
    EmbeddingCube,
    GMLPCell,
    GRUCell,
    Lattice,
    Rollout,
    Rule,
    RuleParameters,
    TokenReading,
    bind,
)
from cube_kernels.rules import heat
from cube_kernels.value import check_flag, check_integer, check_positive, check_range

ALIVE = Alive(1, threshold=0.25, when="after", dead_value=-1.0)
VALUES = [
    Lattice((2, 3, 4), 5),
    Lattice((2, 3, 4), 5, ((0, 0, 0), (0, 0, -2)), boundary="absorbing", sponge_width=2, sponge_strength=0.3),
    Rule(),
    Rule(filters=0, fixed_filters=("identity",), clamp=(-1, 1), immutable_channels=(0, 2), fire_rate=0.5, alive=ALIVE),
    ALIVE,
]
INTEGERS = [np.int64, np.int32, np.uint8, torch.tensor, np.array]


class Four:
    def __index__(self):
        return 4


def plain(value):
    """Whether it is made of Python's own numbers and strings."""
    if isinstance(value, tuple):
        return all(map(plain, value))
    return type(value) in (int, float, bool, str, type(None), Alive)


@pytest.mark.parametrize("integer", INTEGERS)
def test_whatever_stands_for_an_integer_is_stored_as_one(integer):
    lattice = Lattice(
        [integer(2), integer(3), integer(4)],
        integer(5),
        [[integer(0), integer(0), integer(0)], [integer(1), integer(0), integer(0)]],
        radius=integer(1),
        sponge_width=integer(4),
    )
    rule = Rule(
        filters=integer(2),
        drive=integer(3),
        hidden=integer(4),
        immutable_channels=[integer(1)],
        alive=Alive(integer(1)),
    )
    assert lattice == Lattice((2, 3, 4), 5, ((0, 0, 0), (1, 0, 0)))
    assert rule == Rule(filters=2, drive=3, hidden=4, immutable_channels=(1,), alive=Alive(1))
    assert all(map(plain, (*vars(lattice).values(), *vars(rule).values(), *vars(rule.alive).values())))
    assert lattice.key == Lattice((2, 3, 4), 5, ((0, 0, 0), (1, 0, 0))).key


def test_an_array_of_offsets_is_a_sequence_of_them():
    offsets = ((0, 0, 0), (0, 1, -2))
    assert Lattice((2, 3, 4), 1, np.array(offsets)) == Lattice((2, 3, 4), 1, offsets)


@pytest.mark.parametrize("number", [np.float64, np.float32, np.float16, int, np.int64])
def test_whatever_stands_for_a_number_is_stored_as_a_float(number):
    lattice = Lattice((2, 2, 2), 2, boundary="absorbing", sponge_strength=number(2))
    rule = Rule(step_size=number(2), fire_rate=number(1), clamp=(number(0), number(2)), alive=Alive(0, number(1)))
    given = [lattice.sponge_strength, rule.step_size, rule.fire_rate, *rule.clamp, rule.alive.threshold]
    assert given == [2, 2, 1, 0, 2, 1]
    assert {type(g) for g in given} == {float}
    assert rule.key == Rule(step_size=2.0, fire_rate=1.0, clamp=(0.0, 2.0), alive=Alive(0, 1.0)).key


def test_names_are_stored_as_plain_strings():
    assert plain(Lattice((2, 2, 2), 2, np.str_("moore"), boundary=np.str_("periodic")).boundary)
    assert type(Rule(activation=np.str_("relu")).activation) is str


def test_modules_take_such_integers_and_keep_plain_ones():
    n = np.int64(4)
    lattice, rule = Lattice((n, n, n), n), Rule(hidden=n)
    cube = EmbeddingCube(np.int64(64), lattice, rule, np.int64(2), proportion=np.float32(1))
    reading = TokenReading(n, np.int64(3))
    assert [type(v) for v in (cube.dim, reading.dim, reading.out)] == [int] * 3
    assert reading.to_output.weight.shape == (3, 4)
    x = torch.randn(1, 4, 4, 4, 4)
    for cell in (GMLPCell(lattice, n), GRUCell(lattice, n)):
        assert cell(x, np.int64(2)).equal(cell(x, 2))
    layer = heat((n, n, n), np.float32(0.125), np.float64(1), channels=n)
    assert layer.rule.step_size == 0.125


@pytest.mark.parametrize("wrong", [True, np.True_, 2.0, np.float64(2), "2", None, np.array([1, 2]), torch.tensor(2.5)])
def test_nothing_else_is_an_integer(wrong):
    with pytest.raises(TypeError, match="x: n is .*; it takes an integer"):
        check_integer("x", "n", wrong)


def test_an_integer_of_any_kind_is_compared_and_returned():
    assert check_positive("x", "n", Four()) == 4
    with pytest.raises(ValueError, match="x: n is 4; it must be at least 5"):
        check_positive("x", "n", Four(), least=5)


@pytest.mark.parametrize("wrong", [True, np.True_, "1", None, 1j, torch.tensor(1.0)])
def test_nothing_else_is_a_number(wrong):
    with pytest.raises(TypeError, match="it takes a number"):
        check_range("x", "n", wrong, 0, 2)


@pytest.mark.parametrize("wrong", ["no", 0, 1, None, np.int64(1)])
def test_nothing_else_is_a_flag(wrong):
    with pytest.raises(TypeError, match="it takes True or False"):
        check_flag("x", "f", wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda flag: Rule(own_state=flag),
        lambda flag: Rule(fire_rate=0.5, fire_rescale=flag),
        lambda flag: GRUCell(VALUES[0], checkpoint=flag),
        lambda flag: GMLPCell(VALUES[0], 4, checkpoint=flag),
    ],
)
def test_flags_are_flags(make):
    with pytest.raises(TypeError, match="is 'no'; it takes True or False"):
        make("no")
    make(np.True_)
    assert Rule(own_state=np.False_).own_state is False


@pytest.mark.parametrize("offset", [(0, 0, 1.9), (0, 0, np.float32(1)), (0, 0, True), (0, 0), (0, 0, 0, 0), 3, "abc"])
def test_an_offset_that_is_none_is_named(offset):
    with pytest.raises(TypeError, match=r"neighborhood holds .*an offset is three integers \(d, h, w\)"):
        Lattice((3, 3, 3), 1, (offset,))


def test_repeated_offsets_are_named_however_many_there_are():
    offsets = [*itertools.product(range(-6, 7), repeat=3)]
    with pytest.raises(ValueError, match=r"holds \(2, -1, 3\) twice"):
        Lattice((3, 3, 3), 1, (*offsets, (4, 4, 4), (2, -1, 3)))
    lattice = Lattice((3, 3, 3), 1, offsets)
    assert lattice.offsets == tuple(offsets)
    assert bind(lattice, Rule(filters=2)).parameter_shapes["filters"] == (2, 13**3, 1)


def test_the_hash_is_computed_once(monkeypatch):
    for value in VALUES:
        monkeypatch.setitem(vars(value), "_hash", 7)
        assert hash(value) == 7


@pytest.mark.parametrize("value", VALUES)
def test_copies_are_equal(value):
    for other in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value)), value.from_key(value.key)):
        assert other == value
        assert hash(other) == hash(value)
        assert vars(other) == vars(value)


def test_a_pickle_is_read_by_another_process(tmp_path):
    (tmp_path / "values").write_bytes(pickle.dumps({value: i for i, value in enumerate(VALUES)}))
    program = (
        "import pickle, sys; table = pickle.load(open(sys.argv[1], 'rb')); "
        "print([table[type(v).from_key(v.key)] for v in table])"
    )
    run = [sys.executable, "-c", program, str(tmp_path / "values")]
    for seed in "12":  # of the hashes of strings
        printed = subprocess.run(run, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed})
        assert json.loads(printed.stdout) == [0, 1, 2, 3, 4]


def test_torch_loads_them_without_being_told_to_trust_them():
    saved = [
        *VALUES,
        RuleParameters(torch.ones(2)),
        Rollout(torch.ones(2), None, torch.tensor([1, 2])),
        CubeLayer(VALUES[0], VALUES[2], 2).state_dict(),
    ]
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded[:5] == VALUES
    assert [hash(value) for value in loaded[:5]] == list(map(hash, VALUES))
    assert loaded[5].filters.equal(torch.ones(2))
    assert loaded[6].steps.tolist() == [1, 2]

"""Lattice and Rule check themselves, and every message names the value and the valid ones."""

import dataclasses

import pytest

from cube_kernels import Lattice, Rule


@pytest.mark.parametrize(
    ("neighborhood", "radius", "count"),
    [
        ("von_neumann", 1, 7),
        ("von_neumann", 2, 25),
        ("moore", 1, 27),
        ("moore", 2, 125),
        ("von_neumann_2d", 2, 13),
        ("moore_2d", 2, 25),
        ("line", 2, 5),
        ("line", 1000, 2001),
    ],
)
def test_neighborhoods_have_their_known_sizes(neighborhood, radius, count):
    offsets = Lattice((3, 3, 3), 1, neighborhood, radius).offsets
    assert len(offsets) == len(set(offsets)) == count
    assert offsets[0] == (0, 0, 0)
    assert list(offsets[1:]) == sorted(offsets[1:])


def test_boundary_maps_of_a_short_axis():
    def targets(boundary, size, radius=1):
        return Lattice((size, 1, 1), 1, radius=radius, boundary=boundary).axis_targets(0)

    assert targets("walls", 3) == [[-1, 0, 1], [0, 1, 2], [1, 2, -1]]
    assert targets("periodic", 3) == [[2, 0, 1], [0, 1, 2], [1, 2, 0]]
    assert targets("replicate", 3) == [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    assert targets("periodic", 1) == [[0], [0], [0]]
    assert targets("periodic", 2, radius=2)[0] == [0, 1]  # all the way around


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shape": (2, 2)}, ValueError, "three sizes"),
        ({"shape": (2, 0, 2)}, ValueError, "at least 1"),
        ({"shape": (2, 2.5, 2)}, TypeError, "2.5"),
        ({"channels": 0}, ValueError, "channels is 0"),
        ({"radius": 0}, ValueError, "radius is 0"),
        ({"radius": 10**9}, ValueError, "radius is 1000000000.*'von_neumann' takes at most 63"),
        ({"radius": 10**9, "neighborhood": "moore_2d"}, ValueError, "at most 723"),
        ({"neighborhood": ((0, 0, 10**12),)}, ValueError, "reach 1000000000000 cells along axis W, which has 2"),
        ({"neighborhood": "hex"}, ValueError, "'hex'.*'von_neumann', 'moore'"),
        ({"boundary": "open"}, ValueError, "'open'.*'walls', 'periodic', 'replicate'"),
    ],
)
def test_a_wrong_lattice_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Lattice(**{"shape": (2, 2, 2), "channels": 4, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"perception": "attend"}, ValueError, "'attend'.*'depthwise', 'gather'"),
        ({"activation": "elu"}, ValueError, "'elu'.*'relu', 'gelu', 'silu', 'tanh'"),
        ({"update": "add"}, ValueError, "'add'.*'residual', 'replace', 'gated'"),
        ({"squash": "clip"}, ValueError, "'clip'.*'identity', 'tanh'"),
        ({"hidden": -1}, ValueError, "hidden is -1"),
        ({"hidden": 0}, ValueError, "hidden is 0.*own_state is True.*takes 'depthwise' with 1"),
        ({"hidden": 0, "own_state": False, "drive": 2}, ValueError, "drive is 2"),
        ({"hidden": 0, "own_state": False, "update": "gated"}, ValueError, "with 1 filters.*with 2 for update 'gated'"),
        ({"hidden": 0, "own_state": False, "perception": "gather"}, ValueError, "perception is 'gather'"),
        ({"filters": True}, TypeError, "True"),
        ({"drive": -1}, ValueError, "drive is -1"),
        ({"perception": "gather", "filters": 2}, ValueError, "no filters"),
        ({"update": "gated", "step_size": 0.5}, ValueError, "update 'gated' has no step size"),
    ],
)
def test_a_wrong_rule_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Rule(**arguments)


def test_both_are_frozen_values():
    assert Lattice([2, 3, 4], 5) == Lattice((2, 3, 4), 5)
    assert hash(Lattice([2, 3, 4], 5)) == hash(Lattice((2, 3, 4), 5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Lattice((2, 3, 4), 5).channels = 6
    with pytest.raises(dataclasses.FrozenInstanceError):
        Rule().hidden = 6


def test_the_usual_squash_of_each_update():
    assert [Rule(update=u).squash for u in ("residual", "replace", "gated")] == ["identity", "tanh", "tanh"]
    assert Rule(update="gated", squash="identity").squash == "identity"

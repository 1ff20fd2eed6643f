"""Ready rules against what their names promise: numpy, closed forms, a transcription of the published step."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cube_kernels import fixed_filters, perceive
from cube_kernels.philox import fires
from cube_kernels.rules import classic_cell, elementary, growing_nca, heat, isotropic_nca, life, texture_nca
from tests.conftest import PADDING

BACKENDS = ["native", "reference"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


# --- the classic cell --------------------------------------------------------------------------------------------


def test_the_classic_cell_has_1240_parameters_to_train():
    """6 neighbors × 8 states + own 8 + external 12 → 16 tanh → 8 tanh."""
    assert sum(p.numel() for p in classic_cell((4, 4, 4), steps=1).parameters() if p.requires_grad) == 1240


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_classic_cell_is_two_layers_of_tanh_on_68_numbers(backend):
    """Cell by cell in numpy: own states, those of the six neighbors (zero beyond a wall), the external inputs."""
    shape = (2, 3, 2)
    layer = classic_cell(shape, steps=1).double()
    layer.backend = backend
    x, drive = torch.randn(1, *shape, 8, dtype=torch.float64), torch.randn(1, *shape, 12, dtype=torch.float64)
    w1, b1, w2, b2 = (p.detach().numpy() for p in layer.parameters())
    result = layer(x, drive=drive)[0].detach().numpy()
    padded = np.pad(x[0].numpy(), [(1, 1)] * 3 + [(0, 0)])
    for d, h, w in itertools.product(*map(range, shape)):
        around = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
        seen = [padded[d + 1 + i, h + 1 + j, w + 1 + k] for i, j, k in [(0, 0, 0), *around]]
        inputs = np.concatenate([*seen, drive[0, d, h, w].numpy()])
        assert inputs.shape == (68,)
        expected = np.tanh(w2 @ np.tanh(w1 @ inputs + b1) + b2)
        assert np.allclose(result[d, h, w], expected, rtol=0, atol=1e-14)


# --- growing neural cellular automata ----------------------------------------------------------------------------

SMOOTH, SLOPE, POINT = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
PLANE = [torch.outer(POINT, POINT), torch.outer(SMOOTH, SLOPE) / 8, torch.outer(SLOPE, SMOOTH) / 8]
SPACE = [
    torch.einsum("d,h,w->dhw", *axes) / size
    for axes, size in [
        ((POINT, POINT, POINT), 1),
        ((SMOOTH, SMOOTH, SLOPE), 32),
        ((SMOOTH, SLOPE, SMOOTH), 32),
        ((SLOPE, SMOOTH, SMOOTH), 32),
    ]
]


def published_perception(x: torch.Tensor) -> torch.Tensor:
    """``[B, D, H, W, C]`` to ``[B, D, H, W, filters·C]`` by torch's convolutions with the kernels written out."""
    channels_first = x.movedim(-1, 1)
    if x.shape[1] == 1:
        kernels, convolve, image = PLANE, F.conv2d, channels_first[:, :, 0]
    else:
        kernels, convolve, image = SPACE, F.conv3d, channels_first
    seen = [
        convolve(image, kernel.to(x).expand(x.shape[-1], 1, *kernel.shape), padding=1, groups=x.shape[-1])
        for kernel in kernels
    ]
    return torch.cat(seen, dim=1).reshape(len(x), -1, *x.shape[1:4]).movedim(1, -1)


def published_living(x: torch.Tensor) -> torch.Tensor:
    alpha = x[..., 3].clamp(0, 1)
    return (F.max_pool3d(alpha, 3, stride=1, padding=1) > 0.1)[..., None]


def published_step(x: torch.Tensor, parameters: dict[str, torch.Tensor], fired: torch.Tensor) -> torch.Tensor:
    """The step of the authors' notebook, growing_ca.ipynb."""
    before = published_living(x)
    hidden = torch.relu(published_perception(x) @ parameters["hidden_weight"].T + parameters["hidden_bias"])
    change = hidden @ parameters["head_weight"].T + parameters["head_bias"]
    x = x + change * fired
    return x * (before & published_living(x))


@pytest.mark.parametrize("shape", [(1, 6, 5), (4, 6, 5)], ids=["plane", "space"])
def test_growing_cells_perceive_the_published_sobel_kernels(shape):
    layer = growing_nca(shape, channels=4)
    x = torch.randn(2, *shape, 4, dtype=torch.float64)
    bank = fixed_filters(layer.rule.fixed_filters, layer.lattice, torch.float64)
    assert torch.allclose(perceive(x, layer.lattice, bank), published_perception(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 9, 8), (5, 6, 7)], ids=["plane", "space"])
@pytest.mark.parametrize("opacity", [0.5, -0.5], ids=["growing", "shrinking"])
def test_growing_cells_step_as_published(backend, shape, opacity):
    """Five steps with arbitrary weights, while cells are born or die."""
    torch.manual_seed(0)
    layer = growing_nca(shape, channels=6, hidden=10).double()
    layer.backend = backend
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    layer.head_bias.data[3] = opacity
    x = torch.zeros(3, *shape, 6, dtype=torch.float64)
    x[:, shape[0] // 2, 2:5, 3:6] = torch.randn(3, 3, 3, 6, dtype=torch.float64)
    states = layer(x, steps=5, seed=11, trajectory_every=1).trajectory.detach()
    parameters = dict(layer.named_parameters())
    living = [published_living(x).sum()]
    for step, state in enumerate(states):
        fired = fires(torch.arange(layer.lattice.cells), len(x), step, 11, 0.5).reshape(3, *shape, 1)
        assert torch.allclose(state, published_step(x, parameters, fired), rtol=0, atol=1e-12)
        x = state
        living.append(published_living(x).sum())
    assert living[0] < living[-1] if opacity > 0 else living[-1] < living[0], "no cell was born or died"


def test_growing_cells_begin_as_the_identity_on_the_living_and_have_the_published_size():
    layer = growing_nca((1, 8, 8))
    assert sum(p.numel() for p in layer.parameters() if p.requires_grad) == 48 * 128 + 128 + 128 * 16 + 16
    seed = torch.zeros(1, 1, 8, 8, 16)
    seed[0, 0, 4, 4, 3:] = 1
    alone = seed.clone()
    alone[0, 0, 0, 0, 0] = 1  # color without opacity, far from the seed: dead
    assert torch.equal(layer(alone, seed=0), seed)


def test_growing_cells_refuse_to_live_without_opacity():
    with pytest.raises(ValueError, match="alive.channel is 3.*3 channels"):
        growing_nca((1, 8, 8), channels=3)


# --- textures, and cells without directions ---------------------------------------------------------------------

SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
AROUND = torch.tensor([[1.0, 2.0, 1.0], [2.0, -12.0, 2.0], [1.0, 2.0, 1.0]])


def on_torus(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Of ``[B, 1, H, W, C]``, channel by channel."""
    image = F.pad(x[:, 0].movedim(-1, 1), (1, 1, 1, 1), mode="circular")
    kernels = kernel.to(x).expand(x.shape[-1], 1, 3, 3)
    return F.conv2d(image, kernels, groups=x.shape[-1]).movedim(1, -1)[:, None]


def texture_step(x, parameters, fired):
    seen = torch.cat([x, on_torus(x, SOBEL), on_torus(x, SOBEL.T), on_torus(x, AROUND)], dim=-1)
    hidden = torch.relu(seen @ parameters["hidden_weight"].T + parameters["hidden_bias"])
    return x + hidden @ parameters["head_weight"].T * fired


def isotropic_step(x, parameters, fired):
    mature = (x[:, 0, ..., 3] > 0.1).to(x.dtype)
    around = F.conv2d(F.pad(mature[:, None], (1, 1, 1, 1), mode="circular"), torch.ones(1, 1, 3, 3, dtype=x.dtype))
    hidden = torch.relu(
        torch.cat([x, on_torus(x, AROUND)], dim=-1) @ parameters["hidden_weight"].T + parameters["hidden_bias"]
    )
    return (x + hidden @ parameters["head_weight"].T * fired) * (around > 0.5)[..., None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("ready", "published"), [(texture_nca, texture_step), (isotropic_nca, isotropic_step)])
def test_they_step_as_the_authors_notebooks_do(backend, ready, published):
    """Four steps with arbitrary weights from a patch, which reaches around the torus."""
    torch.manual_seed(0)
    layer = ready((1, 7, 8), channels=5, hidden=9).double()
    layer.backend = backend
    for parameter in layer.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    x = torch.zeros(2, 1, 7, 8, 5, dtype=torch.float64)
    x[:, :, :3, 6:] = torch.rand(2, 1, 3, 2, 5, dtype=torch.float64)
    states = layer(x, steps=4, seed=5, trajectory_every=1).trajectory.detach()
    for step, state in enumerate(states):
        fired = fires(torch.arange(56), 2, step, 5, 0.5).reshape(2, 1, 7, 8, 1)
        assert torch.allclose(state, published(x, dict(layer.named_parameters()), fired), rtol=0, atol=1e-12)
        assert not torch.equal(state, x)
        x = state


@pytest.mark.parametrize(("ready", "trained"), [(texture_nca, 5856), (isotropic_nca, 9408)])
def test_they_have_as_many_parameters_as_published_and_start_still(ready, trained):
    layer = ready((1, 8, 8))
    assert sum(p.numel() for p in layer.parameters() if p.requires_grad) == trained
    x = torch.ones(1, 1, 8, 8, layer.lattice.channels)
    assert torch.equal(layer(x, steps=3, seed=0), x)


@pytest.mark.parametrize("shape", [(1, 6, 6), (6, 6, 6)], ids=["plane", "space"])
@pytest.mark.parametrize("ready", [isotropic_nca, texture_nca])
def test_isotropic_cells_alone_know_no_direction(shape, ready):
    """Turned and mirrored, what they become is what they became, turned and mirrored."""
    torch.manual_seed(0)
    layer = ready(shape, channels=5, hidden=16, fire_rate=1.0).double()
    torch.nn.init.normal_(layer.head_weight, std=0.1)
    x = torch.rand(1, *shape, 5, dtype=torch.float64)
    turns = [lambda s: s.rot90(1, (2, 3)), lambda s: s.flip(3)]
    if shape[0] > 1:
        turns += [lambda s: s.rot90(1, (1, 2)), lambda s: s.transpose(1, 3)]
    with torch.no_grad():
        same = [torch.allclose(layer(turn(x), steps=3), turn(layer(x, steps=3)), rtol=0, atol=1e-9) for turn in turns]
    assert same == [ready is isotropic_nca] * len(turns)


# --- life --------------------------------------------------------------------------------------------------------


def numpy_life(cells: np.ndarray, born: set[int], survive: set[int], boundary: str) -> np.ndarray:
    """One generation; a lattice of one layer is a plane."""
    reach = [(0, 0) if cells.shape[0] == 1 else (1, 1), (1, 1), (1, 1)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(cells, reach, mode=PADDING[boundary]), tuple(1 + 2 * r for r, _ in reach)
    )
    neighbors = windows.sum(axis=(3, 4, 5)) - cells
    return np.where(cells == 1, np.isin(neighbors, list(survive)), np.isin(neighbors, list(born))).astype(int)


def generations(cells: np.ndarray, layer, dtype: torch.dtype, backend: str, steps: int) -> list[np.ndarray]:
    layer = layer.to(dtype)
    layer.backend = backend
    states = layer(torch.tensor(cells, dtype=dtype)[None, ..., None], steps=steps, trajectory_every=1).trajectory
    assert states.dtype is dtype
    return list(states[:, 0, ..., 0].double().numpy())


PLANE_RULES = {
    "B3/S23": ({3}, {2, 3}),  # life
    "B36/S23": ({3, 6}, {2, 3}),  # highlife
    "B3678/S34678": ({3, 6, 7, 8}, {3, 4, 6, 7, 8}),  # day & night
    "B2/S": ({2}, set()),  # seeds
    "B1357/S1357": ({1, 3, 5, 7}, {1, 3, 5, 7}),  # replicator
    "b0,3/s2-3": ({0, 3}, {2, 3}),  # born out of nothing
}
SPACE_RULES = {
    "B6/S567": ({6}, {5, 6, 7}),  # 5766 of Bays
    "B5/S45": ({5}, {4, 5}),  # 4555 of Bays
    "B13,14,17-19/S13-26": ({13, 14, 17, 18, 19}, set(range(13, 27))),  # clouds
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("boundary", ["walls", "periodic"])
@pytest.mark.parametrize(
    ("shape", "rule", "born", "survive"),
    [((1, 13, 16), rule, *sets) for rule, sets in PLANE_RULES.items()]
    + [((9, 8, 7), rule, *sets) for rule, sets in SPACE_RULES.items()],
    ids=[*PLANE_RULES, *SPACE_RULES],
)
def test_life_is_exact(backend, dtype, boundary, shape, rule, born, survive):
    """Twelve generations equal numpy's, bit for bit."""
    density = 0.5 if 13 in born else 0.2
    cells = (np.random.default_rng(5).random(shape) < density).astype(int)
    seen = {cells.tobytes()}
    for state in generations(cells, life(shape, rule, boundary), dtype, backend, steps=12):
        cells = numpy_life(cells, born, survive, boundary)
        assert np.array_equal(state, cells)
        seen.add(cells.tobytes())
    assert len(seen) > 4, "the pattern came to rest at once: little was tested"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(24))
def test_any_rule_is_exact(backend, seed):
    """Random counts, born out of nothing or never, on random lattices, some of them thin, with every boundary."""
    draw = np.random.default_rng(seed)
    plane = bool(draw.integers(2))
    shape = (1 if plane else int(draw.integers(2, 6)), *map(int, draw.integers(2, 8, 2)))
    most = 8 if plane else 26
    born, survive = (set(np.flatnonzero(draw.random(most + 1) < draw.random()).tolist()) for _ in range(2))
    if plane:
        rule = "/".join(name + "".join(map(str, sorted(counts))) for name, counts in (("B", born), ("S", survive)))
    else:
        rule = "/".join(
            name + ",".join(f"{n}-{n}" for n in sorted(counts)) for name, counts in (("B", born), ("S", survive))
        )
    boundary = str(draw.choice(["walls", "periodic", "replicate", "reflecting"]))
    cells = (draw.random(shape) < draw.random()).astype(int)
    dtype = DTYPES[seed % 4]
    for state in generations(cells, life(shape, rule, boundary), dtype, backend, steps=4):
        cells = numpy_life(cells, born, survive, boundary)
        assert np.array_equal(state, cells), rule


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_glider_glides(backend):
    """Four generations carry it one cell down and one to the right, around a torus."""
    cells = torch.zeros(1, 1, 6, 7, 1)
    for row, column in [(0, 1), (1, 2), (2, 0), (2, 1), (2, 2)]:
        cells[0, 0, row, column] = 1
    layer = life((1, 6, 7))
    layer.backend = backend
    for laps in range(1, 11):
        assert torch.equal(layer(cells, steps=4 * laps), cells.roll((laps, laps), (2, 3)))


def test_all_die_by_a_rule_without_counts():
    assert not life((1, 4, 5), "B/S")(torch.ones(1, 1, 4, 5, 1)).any()


def test_counts_are_digits_or_where_a_comma_or_hyphen_stands_numbers():
    x = (torch.rand(8, 4, 5, 6, 1, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    digits, numbers = life((4, 5, 6), "B12/S34"), life((4, 5, 6), "b1-2/s3,4")
    assert torch.equal(digits(x), numbers(x))
    one, both = life((4, 5, 6), "B12,12/S3-4"), life((4, 5, 6), "B12-12/S3-4")
    assert torch.equal(one(x), both(x))
    assert not torch.equal(one(x), numbers(x))


@pytest.mark.parametrize(
    ("shape", "rule", "message"),
    [
        ((1, 5, 5), "B9/S23", "'B9/S23' counts 9, but a cell has 8 neighbors$"),
        ((1, 5, 5), "B36/S2-3", "counts 36, but a cell has 8 neighbors; .*commas separate"),
        ((5, 5, 5), "B5/S26,27", "counts 27, but a cell has 26 neighbors"),
        *(
            ((5, 5, 5), rule, "rule is .*'B36/S23'.*'B13,14,17-19/S13-26'")
            for rule in [
                "",
                "23/3",
                "S23/B3",
                "B3S23",
                "B3/S23/C4",
                "B3/S2x",
                "B3 /S23",
                "B5-3/S",
                "B3,/S23",
                "B3-/S23",
            ]
        ),
    ],
)
def test_a_wrong_rule_of_life_is_refused(shape, rule, message):
    with pytest.raises(ValueError, match=message):
        life(shape, rule)


def test_an_absorbing_boundary_is_no_place_to_live():
    with pytest.raises(ValueError, match="boundary is 'absorbing'.*'walls', 'periodic', 'replicate', 'reflecting'"):
        life((1, 5, 5), boundary="absorbing")


@pytest.mark.parametrize("build", [lambda: life((1, 5, 5)), lambda: heat((3, 4, 5), 0.1, 1.0)], ids=["life", "heat"])
def test_constant_rules_train_nothing_and_draw_nothing(build):
    before = torch.get_rng_state()
    layer = build()
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(p.requires_grad for p in layer.parameters())


# --- elementary automata -------------------------------------------------------------------------------------------


def wolfram_step(line: np.ndarray, number: int, boundary: str) -> np.ndarray:
    """Cell by cell, by the digits of the number."""
    padded = np.pad(line, 1, mode=PADDING[boundary])
    digits = f"{number:08b}"[::-1]
    neighborhoods = zip(padded, padded[1:], padded[2:], strict=False)
    return np.array([int(digits[int(f"{left}{own}{right}", 2)]) for left, own, right in neighborhoods])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("boundary", ["periodic", "walls", "replicate", "reflecting"])
def test_all_256_elementary_automata_step_by_the_digits_of_their_number(backend, boundary):
    lines = np.random.default_rng(0).integers(0, 2, (3, 37))
    for number in range(256):
        layer = elementary(37, number, boundary)
        layer.backend = backend
        found = layer(torch.tensor(lines, dtype=torch.float32).view(3, 1, 1, 37, 1), steps=2).view(3, 37)
        once = [wolfram_step(line, number, boundary) for line in lines]
        expected = [wolfram_step(line, number, boundary) for line in once]
        assert found.tolist() == np.array(expected).tolist(), number


@pytest.mark.parametrize("dtype", DTYPES)
def test_rule_90_is_the_triangle_of_pascal_in_every_dtype(dtype):
    line = torch.zeros(1, 1, 1, 65, 1, dtype=dtype)
    line[..., 32, :] = 1
    rows = elementary(65, 90, steps=32).to(dtype)(line, trajectory_every=1).trajectory.view(32, 65)
    for n, row in enumerate(rows, start=1):
        expected = torch.zeros(65, dtype=dtype)
        expected[32 - n : 33 + n : 2] = torch.tensor([math.comb(n, k) % 2 for k in range(n + 1)], dtype=dtype)
        assert torch.equal(row, expected)


@pytest.mark.parametrize(("number", "message"), [(256, "number is 256; it must be at most 255"), (-1, "number is -1")])
def test_a_number_of_no_elementary_automaton_is_named(number, message):
    with pytest.raises(ValueError, match=f"elementary: {message}"):
        elementary(8, number)


def test_an_absorbing_line_would_have_fractions():
    with pytest.raises(ValueError, match="elementary: boundary is 'absorbing'; valid: 'walls'"):
        elementary(8, 30, "absorbing")


# --- heat --------------------------------------------------------------------------------------------------------


def eigenmode(boundary: str, size: int, k: int) -> tuple[torch.Tensor, float]:
    """An eigenvector of the second difference under a boundary, and its eigenvalue."""
    i = torch.arange(size, dtype=torch.float64)
    if size == 1:
        return torch.ones(1, dtype=torch.float64), 0.0  # no difference along this axis
    vector, angle = {
        "walls": (lambda angle: torch.sin(angle * (i + 1)), math.pi * (k + 1) / (size + 1)),
        "periodic": (lambda angle: torch.cos(angle * i), 2 * math.pi * k / size),
        "replicate": (lambda angle: torch.cos(angle * (i + 0.5)), math.pi * k / size),
        "reflecting": (lambda angle: torch.cos(angle * i), math.pi * k / (size - 1)),
    }[boundary]
    return vector(angle), 2 * math.cos(angle) - 2


def heat_modes(boundary: str, shape: tuple, modes: list, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A state of one eigenmode a channel, and what a step multiplies each by: 1 + rate · λ, where the rate is
    diffusivity · time_step."""
    states, factors = [], []
    for mode in modes:
        vectors, values = zip(*(eigenmode(boundary, n, k) for n, k in zip(shape, mode, strict=True)), strict=True)
        states.append(torch.einsum("d,h,w->dhw", *vectors))
        factors.append(1 + rate * sum(values))
    x = torch.stack(states, dim=-1)[None]
    assert x.abs().amax(dim=(0, 1, 2, 3)).min() > 0.5, "a mode vanished: it would test nothing"
    return x, torch.tensor(factors, dtype=torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("boundary", ["walls", "periodic", "replicate", "reflecting"])
@pytest.mark.parametrize(
    ("shape", "modes"),
    [
        ((4, 5, 7), [(1, 1, 1), (2, 0, 3), (3, 4, 6)]),
        ((2, 5, 3), [(1, 2, 1), (0, 0, 0), (1, 4, 2)]),
        ((1, 6, 5), [(0, 1, 2), (0, 5, 4), (0, 0, 1)]),
        ((1, 1, 9), [(0, 0, 1), (0, 0, 4), (0, 0, 8)]),
        ((1, 1, 1), [(0, 0, 0)]),
    ],
    ids=str,
)
def test_heat_eigenmodes_decay_as_the_closed_form_says(backend, boundary, shape, modes):
    steps, diffusivity, time_step = 20, 0.5, 0.3
    layer = heat(shape, diffusivity, time_step, channels=len(modes), boundary=boundary).double()
    layer.backend = backend
    x, factors = heat_modes(boundary, shape, modes, diffusivity * time_step)
    assert (layer(x, steps=steps) - x * factors**steps).abs().max() < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_heat_fades_into_an_absorbing_boundary(backend):
    """A loop in numpy: Euler's step on a state with nothing around it, then the sponge."""
    shape, steps = (5, 1, 11), 6
    layer = heat(shape, 1.0, 0.2, boundary="absorbing").double()
    layer.backend = backend
    state = np.random.default_rng(0).standard_normal(shape)
    result = layer(torch.tensor(state)[None, ..., None], steps=steps)[0, ..., 0].numpy()
    eta = np.ones(shape)
    for d, _, w in np.ndindex(shape):
        for i, size in ((d, 5), (w, 11)):
            depth = max(0, 4 - min(i, size - 1 - i)) / 4
            eta[d, 0, w] *= np.exp(-((0.5 * depth) ** 2))
    for _ in range(steps):
        p = np.pad(state, ((1, 1), (0, 0), (1, 1)))
        around = p[:-2, :, 1:-1] + p[2:, :, 1:-1] + p[1:-1, :, :-2] + p[1:-1, :, 2:]
        state = eta * (state + 0.2 * (around - 4 * state))
    assert np.allclose(result, state, rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_of_heat_is_heat_even_where_all_is_zero(backend):
    """On a ring the operator is symmetric. Pairs of relus would give no gradient at a state of zeros."""
    layer = heat((3, 4, 5), 1.0, 0.1, boundary="periodic").double()
    layer.backend = backend
    x = torch.zeros(1, 3, 4, 5, 1, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 3, 4, 5, 1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(layer(x, steps=7), x, weight)
    assert torch.allclose(gradient, layer(weight, steps=7), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("shape", "axes"), [((4, 6, 2), 3), ((1, 4, 6), 2), ((1, 1, 8), 1)])
def test_an_unstable_step_is_refused_and_the_longest_stable_one_is_not(shape, axes):
    """The checkerboard grows fastest: at the limit it changes sign with every step and keeps its size."""
    checkerboard = 1.0 - 2.0 * (torch.tensor(list(np.ndindex(shape))).sum(1) % 2).double().reshape(1, *shape, 1)
    layer = heat(shape, 4.0, 1 / (8 * axes), boundary="periodic").double()
    assert torch.allclose(layer(checkerboard, steps=31), -checkerboard, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=rf"diffusivity · time_step is 0\.\d+; along {axes} axes .*1/{2 * axes} only"):
        heat(shape, 4.0, 1.01 / (8 * axes))


@pytest.mark.parametrize(
    ("diffusivity", "time_step", "message"),
    [(-0.1, 1.0, r"diffusivity is -0.1.*\[0"), (0.1, -1.0, r"time_step is -1.0.*\[0"), (math.nan, 1.0, "is nan")],
)
def test_heat_refuses_what_is_no_rate(diffusivity, time_step, message):
    with pytest.raises(ValueError, match=message):
        heat((3, 3, 3), diffusivity, time_step)

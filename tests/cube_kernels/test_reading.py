"""TokenReading, TokenLattice and TokenCube: what they compute, and that padding, length, backend and compiler change
nothing of it."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import Tensor, nn

from cube_kernels import Alive, Lattice, Rule, TokenCube, TokenLattice, TokenReading, rollout
from cube_kernels.lattice import BOUNDARIES

DIM = 6

RULES = {
    "plain": Rule(hidden=5),
    "gather and drive": Rule("gather", hidden=5, drive=2),
    "gated": Rule(hidden=5, update="gated", filters=2, own_state=False),
    "alive": Rule(hidden=5, update="replace", alive=Alive(0, 0.1)),
    # Where zero is alive and a wall is not.
    "alive below zero": Rule(hidden=5, alive=Alive(1, -0.2, dead_value=-0.5), clamp=(-1.0, 1.0)),
    "fixed filters": Rule(hidden=5, fixed_filters=("laplacian",), update="leaky", immutable_channels=(0,)),
}
SHAPES = [((2, 2), "moore"), ((3, 2), "line"), ((2, 3), "von_neumann"), ((1, 1), "line")]


def drawn(module: nn.Module) -> nn.Module:
    """The module with parameters that are the same in every process and nowhere zero; weights are scaled by their
    fan-in, so that a rollout neither dies nor explodes."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        scale = parameter.shape[1] ** -0.5 if parameter.dim() > 1 else 0.3
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(scale * noise)
    return module


def cube(boundary="walls", rule=RULES["plain"], shape=(2, 2), neighborhood="moore", longest=8, **named) -> TokenCube:
    lattice = Lattice((*shape, longest), 4, neighborhood, boundary=boundary)
    return TokenCube(DIM, lattice, rule, 3, **named)


def texts(*lengths: int, width: int = DIM, columns: int | None = None, seed: int = 0, **named) -> tuple[Tensor, Tensor]:
    """Tokens and mask of texts of these lengths; what lies in padding is no number."""
    columns = max(lengths, default=0) if columns is None else columns
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(lengths), columns, width, generator=generator, **named)
    mask = torch.arange(columns) < torch.tensor(lengths, dtype=torch.int64)[:, None]
    return tokens.masked_fill(~mask[..., None], math.nan), mask


def weights(mask: Tensor, **named) -> Tensor:
    return torch.randn(mask.shape, generator=torch.Generator().manual_seed(7), **named)


# ------------------------------------------------------------------------------------------------ what is computed


@pytest.mark.parametrize("out", [None, 4, 9])
def test_an_untrained_cube_is_exactly_the_weighted_mean(out):
    """Bit for bit the bag's, which is the mean that a loop over tokens computes; another width cuts it off or fills it
    up with zeros."""
    (tokens, mask), bag = texts(5, 1, 3, dtype=torch.float64), TokenReading(DIM, out).double()
    log_weight = weights(mask, dtype=torch.float64)
    mean = bag(tokens, mask, log_weight)
    assert torch.equal(cube(out=out).double()(tokens, mask, log_weight), mean)
    assert mean.shape == (3, out or DIM)
    for row, length in enumerate((5, 1, 3)):
        share = [math.exp(w) for w in log_weight[row, :length].tolist()]
        for i in range(out or DIM):
            terms = [s * x for s, x in zip(share, tokens[row, :length, i].tolist(), strict=True)] if i < DIM else [0.0]
            assert mean[row, i].item() == pytest.approx(sum(terms) / sum(share), rel=1e-13, abs=1e-15)


def by_hand(reading: TokenCube, boundary: str, text: Tensor, log_weight: Tensor, seed: int | None = None) -> Tensor:
    """One text ``[L, dim]`` as the docstring writes it down, its lattice ten columns longer at either end."""
    layer, (depth, height, _), channels = reading.context.layer, reading.context.lattice.shape, 4
    length, beyond, drive = len(text), 10, layer.rule.drive
    lattice = Lattice((depth, height, length + 2 * beyond), channels, layer.lattice.neighborhood, boundary=boundary)
    state, push = text.new_zeros(1, *lattice.state_shape), text.new_zeros(1, *lattice.shape, drive)
    written = torch.zeros(1, *lattice.shape, dtype=torch.bool)
    written[..., beyond:-beyond] = True
    rms = [math.sqrt(sum(v * v for v in token.tolist()) / DIM) for token in text]
    cells = [(d, h) for d in range(depth) for h in range(height)]
    for t, token in enumerate(text):
        h = reading.lift(token / rms[t])
        for i, (d, e) in enumerate(cells):
            state[0, d, e, beyond + t] = h[i * channels : (i + 1) * channels]
            start = len(cells) * channels + i * drive
            push[0, d, e, beyond + t] = h[start : start + drive]
    given = push if drive else None
    left = rollout(
        state, layer.rule_parameters, lattice, layer.rule, steps=3, drive=given, write_mask=written,
        backend="reference", seed=seed,
    )  # fmt: skip
    total, mean = 0.0, torch.zeros(DIM, dtype=text.dtype)
    for t, token in enumerate(text):
        seen = reading.read(torch.cat([left[0, d, e, beyond + t] for d, e in cells]))
        share = torch.exp(log_weight[t] + seen[DIM])
        total, mean = total + share, mean + share * (token + rms[t] * seen[:DIM])
    return reading.to_output(mean / total)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_cube_is_its_formula(boundary, rule):
    for shape, neighborhood in SHAPES[:3]:
        reading = drawn(cube(boundary, rule, shape, neighborhood, out=5)).double()
        tokens, mask = texts(5, 1, 3, dtype=torch.float64)
        log_weight = weights(mask, dtype=torch.float64)
        read = reading(tokens, mask, log_weight)
        for row, length in enumerate((5, 1, 3)):
            expected = by_hand(reading, boundary, tokens[row, :length], log_weight[row])
            torch.testing.assert_close(read[row], expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("make", [cube, lambda: TokenReading(DIM)], ids=["cube", "bag"])
def test_texts_that_share_tokens_share_what_is_computed_of_each_alone(make):
    """Of a table, the two halves say what the whole says of its rows laid out; and have the same gradient."""
    reading = drawn(make()).double()
    table = torch.randn(6, DIM, dtype=torch.float64, requires_grad=True)
    ids, mask = torch.tensor([[3, 1, 3, 0], [5, 3, 0, 0]]), torch.tensor([[True] * 4, [True, True, False, False]])
    whole = reading(table[ids], mask)
    halves = reading.mix(reading.enter(table).at(ids), mask)
    torch.testing.assert_close(halves, whole, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(read.square().sum(), table)[0] for read in (whole, halves)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    assert gradients[0].any(dim=1).tolist() == [True, True, False, True, False, True]


def test_a_cube_commutes_with_a_positive_factor():
    """But for the output's bias; with a token of zeros among the others, too."""
    reading = drawn(cube()).double()
    nn.init.zeros_(reading.to_output.bias)
    tokens, mask = texts(5, 3, dtype=torch.float64)
    tokens[0, 1] = 0
    for factor in (3.0, 1e-30, 1e30):
        assert torch.allclose(reading(factor * tokens, mask), factor * reading(tokens, mask), rtol=1e-12, atol=0)


def test_the_order_of_words_matters_to_a_lattice_and_not_to_a_bag():
    tokens, mask = texts(5, dtype=torch.float64)
    for reading, matters in ((cube(), True), (TokenReading(DIM), False)):
        drawn(reading.double())
        assert torch.allclose(reading(tokens, mask), reading(tokens.flip(1), mask)) != matters


def test_without_steps_the_lattice_gives_back_what_enters():
    context = TokenLattice(Lattice((2, 3, 4), 5, boundary="periodic"), Rule(hidden=4, drive=2), 0)
    h, mask = texts(4, 2, 0, width=context.entering)
    assert torch.equal(context(h, mask), h[..., : context.leaving].masked_fill(~mask[..., None], 0))


def test_along_a_line_a_step_reaches_as_many_tokens_as_the_radius():
    """And of their cells the same alone."""
    context = drawn(TokenLattice(Lattice((2, 2, 9), 3, "line", 2), Rule(hidden=4), 2))
    h, mask = texts(9, width=context.entering)
    h.requires_grad_()
    context(h, mask)[0, 4, 3:6].sum().backward()  # the second of four cells
    reached = h.grad[0].unflatten(1, (4, 3)).any(dim=2)
    assert reached.nonzero().tolist() == [[t, 1] for t in range(9)]
    assert Lattice((2, 2, 9), 3, "line", 2).offsets == tuple((0, 0, w) for w in (0, -2, -1, 1, 2))
    narrow = TokenLattice(Lattice((2, 2, 9), 3, "line"), Rule(hidden=4), 2)
    (gradient,) = torch.autograd.grad(narrow(h, mask)[0, 4].sum(), h)
    assert gradient[0].any(dim=1).nonzero().flatten().tolist() == [2, 3, 4, 5, 6]


def test_a_weight_of_zero_leaves_a_token_out_of_the_mean():
    """But the others still see it; and a text of nothing else has the mean zero."""
    tokens, mask = texts(4, 3)
    log_weight = torch.zeros(2, 4)
    log_weight[0, 1] = log_weight[1] = -torch.inf
    fewer = mask.clone()
    fewer[0, 1] = fewer[1] = False
    bag, reading = drawn(TokenReading(DIM)), drawn(cube())
    assert torch.equal(bag(tokens, mask, log_weight), bag(tokens, fewer))
    assert not torch.allclose(reading(tokens, mask, log_weight)[0], reading(tokens, fewer)[0])
    for module in (bag, reading):
        log_weight.requires_grad_(True)
        read = module(tokens, mask, log_weight)
        assert torch.equal(read[1], module.to_output.bias)
        gradients = torch.autograd.grad(read.square().sum(), [log_weight, *module.parameters()])
        assert all(g.isfinite().all() for g in gradients)


def test_a_context_of_ones_own_gets_no_padding_and_its_padding_does_not_matter():
    class Neighbor(nn.Module):
        """Each token sees the one before it, and what lies in padding is no number."""

        def forward(self, h, mask, *rest):
            assert not h[~mask].any()
            self.rest = rest
            return torch.cat([h.new_zeros(len(h), 1, 3), h[:, :-1]], dim=1).masked_fill(~mask[..., None], math.nan)

    context = Neighbor()
    reading = drawn(TokenReading(DIM, context=context, entering=3, leaving=3))
    tokens, mask = texts(4, 2, 0)
    read = reading(tokens, mask)
    assert context.rest == ()
    torch.testing.assert_close(read[1:2], reading(tokens[1:2, :2], mask[1:2, :2]))
    assert torch.equal(read[2], reading.to_output.bias)
    assert all(g.isfinite().all() for g in torch.autograd.grad(read.sum(), list(reading.parameters())))
    assert not torch.allclose(read[0], reading(tokens.roll(1, dims=1), mask)[0])
    reading(tokens, mask, seed=5)
    assert context.rest == (5,)


# ------------------------------------------------------------------------------------------------ padding, lengths


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_padding_changes_nothing(boundary, rule, backend):
    """A text alone and in a batch, padded and beside longer ones: the same bits of every cell on the native backend,
    and the same gradients of it all."""
    for shape, neighborhood in SHAPES:
        lattice = Lattice((*shape, 4), 4, neighborhood, boundary=boundary)
        context = drawn(TokenLattice(lattice, rule, 3, backend).double())
        lengths = (3, 1, 6, 0, 2)
        h, mask = texts(*lengths, width=context.entering, columns=9, dtype=torch.float64)
        together = context(h, mask)
        assert not together[~mask].any()
        gradients = torch.autograd.grad(together.square().sum(), list(context.parameters()))
        sums = [torch.zeros_like(g) for g in gradients]
        for row, length in enumerate(lengths):
            alone = context(h[row : row + 1, :length], mask[row : row + 1, :length])
            if backend == "native":
                assert torch.equal(together[row : row + 1, :length], alone)
            else:
                torch.testing.assert_close(together[row : row + 1, :length], alone)
            each = torch.autograd.grad(alone.square().sum(), list(context.parameters()))
            sums = [s + g for s, g in zip(sums, each, strict=True)]
        torch.testing.assert_close(list(gradients), sums, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_cube_reads_a_text_alone_as_in_a_batch(boundary):
    reading = drawn(cube(boundary, RULES["gather and drive"]).double())
    tokens, mask = texts(3, 1, 6, columns=9, dtype=torch.float64)
    together = reading(tokens, mask)
    for row, length in enumerate((3, 1, 6)):
        alone = reading(tokens[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1], alone)


def test_a_gap_in_the_mask_is_a_wall():
    """Of two words with padding between, neither sees the other if one step does not reach over it."""
    context = drawn(TokenLattice(Lattice((2, 2, 5), 3, "moore"), Rule(hidden=4), 4))
    h, mask = texts(5, width=context.entering)
    mask[0, 2] = False
    whole = context(h, mask)
    for part in (slice(0, 2), slice(3, 5)):
        assert torch.equal(whole[:, part], context(h[:, part], mask[:, part]))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("make", [cube, lambda boundary: TokenReading(DIM)], ids=["cube", "bag"])
def test_a_text_without_tokens_is_the_outputs_bias(make, boundary):
    reading = drawn(make(boundary))
    bias = reading.to_output.bias
    tokens, mask = texts(2, 0)
    tokens.requires_grad_()
    read = reading(tokens, mask)
    assert torch.equal(read[1], bias)
    assert not torch.allclose(read[0], bias)
    with torch.autograd.set_detect_anomaly(True):  # on the way, too
        gradients = torch.autograd.grad(read.square().sum(), [tokens, *reading.parameters()])
    assert all(g.isfinite().all() for g in gradients)
    assert not gradients[0][1].any()
    for count in (3, 0):
        nothing = torch.empty(count, 0, DIM, requires_grad=True)
        read = reading(nothing, torch.empty(count, 0, dtype=torch.bool))
        assert torch.equal(read, bias.expand(count, -1))
        found = torch.autograd.grad(read.sum(), [nothing, *reading.parameters()], allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in found)
    assert reading(*texts(columns=4)).shape == (0, DIM)


def test_a_token_of_zeros_has_finite_gradients():
    """In float16 too, where next to nothing has no inverse."""
    for dtype in (torch.float32, torch.float16):
        reading = drawn(cube()).to(dtype)
        tokens, mask = texts(3, 3, dtype=dtype)
        tokens[:, 1] = 0
        tokens.requires_grad_()
        reading(tokens, mask).sum().backward()
        assert all(p.grad.isfinite().all() for p in (tokens, *reading.parameters()))
        assert tokens.grad[:, 1].any()


def test_the_parameters_are_the_same_for_texts_of_any_length():
    short, long = drawn(cube(longest=2)), cube(longest=64)
    long.load_state_dict(short.state_dict())
    for length in (1, 2, 7, 70):
        assert torch.equal(short(*texts(length)), long(*texts(length)))


# ------------------------------------------------------------------------------------------- backends and numbers


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("boundary", ["walls", "absorbing"])
def test_the_backends_agree(boundary, rule):
    (tokens, mask), results = texts(5, 0, 3, dtype=torch.float64), []
    for backend in ("native", "reference"):
        reading = drawn(cube(boundary, rule, backend=backend)).double()
        x = tokens.clone().requires_grad_()
        read = reading(x, mask)
        results.append([read, *torch.autograd.grad(read.square().sum(), [x, *reading.parameters()])])
    for mine, truth in zip(*results, strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-10, atol=1e-12)


def test_the_gradients_are_those_of_finite_differences():
    reading = drawn(cube("periodic", RULES["gather and drive"], (1, 2), "line", backend="reference")).double()
    (tokens, mask), names = texts(3, 1, dtype=torch.float64), [name for name, _ in reading.named_parameters()]

    def call(tokens, log_weight, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(reading, named, (tokens.masked_fill(~mask[..., None], 0), mask, log_weight))

    tokens = tokens.nan_to_num().requires_grad_()
    log_weight = weights(mask, dtype=torch.float64).requires_grad_()
    parameters = [p.detach().requires_grad_() for p in reading.parameters()]
    assert torch.autograd.gradcheck(call, (tokens, log_weight, *parameters))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_bfloat16_cube_reads_what_a_float32_one_does(backend):
    reading = drawn(cube("periodic", backend=backend))
    tokens, mask = texts(5, 0, 3)
    half = copy.deepcopy(reading).bfloat16()
    read = half(tokens.bfloat16(), mask, weights(mask))
    assert read.dtype == torch.bfloat16
    torch.testing.assert_close(read.float(), reading(tokens, mask, weights(mask)), rtol=0.05, atol=0.1)
    read.sum().backward()
    assert all(p.grad.isfinite().all() for p in half.parameters())


def test_autocast_reads_what_a_float32_cube_does():
    """Of float32 and of half-width tokens; and a bag still sums in float32."""
    reading, (tokens, mask) = drawn(cube("periodic", RULES["gather and drive"])), texts(5, 0, 3)
    expected = reading(tokens, mask)
    for given in (tokens, tokens.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            read = reading(given, mask)
        assert read.dtype == torch.bfloat16
        torch.testing.assert_close(read.float(), expected, rtol=0.05, atol=0.1)
        read.sum().backward()
    nearly_opposite = torch.tensor([[[256.5], [-256.0]]])  # in bfloat16 quite
    with torch.autocast("cpu", torch.bfloat16):
        assert TokenReading(1)(nearly_opposite, torch.ones(1, 2, dtype=torch.bool)).item() == 0.25


@pytest.mark.parametrize("make", [cube, lambda: TokenReading(DIM)], ids=["cube", "bag"])
def test_float16_tokens_of_300_stay_finite(make):
    """300² has no float16, nor has the sum of 300 of them."""
    reading = drawn(make()).half()
    tokens = torch.full((1, 300, DIM), 300.0, dtype=torch.float16, requires_grad=True)
    read = reading(tokens, torch.ones(1, 300, dtype=torch.bool))
    assert read.isfinite().all()
    read.sum().backward()
    assert tokens.grad.isfinite().all()


def test_a_seed_draws_what_fires():
    reading = drawn(cube(rule=Rule(hidden=5, fire_rate=0.5)))
    tokens, mask = texts(4, 2)
    assert torch.equal(reading(tokens, mask, seed=3), reading(tokens, mask, seed=3))
    assert not torch.equal(reading(tokens, mask, seed=3), reading(tokens, mask, seed=4))
    with pytest.raises(ValueError, match="no seed was given, but the rule's fire_rate is 0.5"):
        reading(tokens, mask)


# -------------------------------------------------------------------------------------------- compilers and exports


@pytest.mark.parametrize(
    ("boundary", "backend", "compiler"),
    [
        ("walls", "native", "inductor"),
        ("absorbing", "reference", "aot_eager"),
        ("periodic", "native", "aot_eager"),
    ],
)
def test_one_compiled_graph_serves_every_length(boundary, backend, compiler):
    """Up to the lattice's own, that one included, with gradients; a second compilation would be an error."""
    torch._dynamo.reset()
    reading = drawn(cube(boundary, RULES["gather and drive"], backend=backend).double())
    compiled = torch.compile(reading, fullgraph=True, dynamic=True, backend=compiler)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for count, length in ((3, 5), (2, 8), (4, 2), (5, 7)):
            tokens, mask = texts(*range(length - 1, length - 1 + count), columns=length, dtype=torch.float64)
            mine, truth = compiled(tokens, mask), reading(tokens, mask)
            torch.testing.assert_close(mine, truth)
            parameters = list(reading.parameters())
            gradients = [torch.autograd.grad(read.square().sum(), parameters) for read in (mine, truth)]
            for g, expected in zip(*gradients, strict=True):
                torch.testing.assert_close(g, expected, rtol=1e-9, atol=1e-11)


def test_a_compiled_graph_draws_with_any_seed():
    """What fires, counted over the lattice that the graph pads to."""
    torch._dynamo.reset()
    reading = drawn(cube(rule=Rule(hidden=5, fire_rate=0.5)))
    compiled = torch.compile(reading, fullgraph=True, dynamic=True, backend="aot_eager")
    tokens, mask = texts(8, 3)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in (3, 2**40):
            torch.testing.assert_close(compiled(tokens, mask, seed=seed), reading(tokens, mask, seed=seed))


def test_a_text_longer_than_the_lattice_is_refused_while_tracing():
    """And without fullgraph the compiler turns to a plain call."""
    torch._dynamo.reset()
    reading, message = drawn(cube()), "the text has 9 tokens; a traced graph takes at most 8"
    with pytest.raises(Exception, match=message):
        torch.compile(reading, fullgraph=True, dynamic=True, backend="eager")(*texts(9))
    for sizes in (None, ({1: torch.export.Dim("length")},) * 2):
        with pytest.raises(ValueError, match=message):
            torch.export.export(reading, texts(9), dynamic_shapes=sizes)
    torch._dynamo.reset()
    compiled = torch.compile(reading, dynamic=True, backend="eager")
    for length in (5, 9):
        assert torch.equal(compiled(*texts(length)), reading(*texts(length)))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("boundary", ["walls", "periodic"])
def test_an_exported_program_takes_any_batch_and_length(boundary, strict):
    """From none to the lattice's own, saved and loaded again."""
    torch._dynamo.reset()
    reading = drawn(cube(boundary, RULES["gather and drive"]))
    tokens, mask = texts(5, 3)
    sizes = {0: torch.export.Dim("batch", min=0), 1: torch.export.Dim("length", min=0, max=8)}
    program = torch.export.export(reading, (tokens, mask, weights(mask)), dynamic_shapes=(sizes,) * 3, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for lengths in ((5, 3), (8, 0, 4), (1,), (7,), (0, 0), ()):
        tokens, mask = texts(*lengths)
        assert torch.equal(loaded(tokens, mask, weights(mask)), reading(tokens, mask, weights(mask)))
    with pytest.raises(Exception, match="8"):
        loaded(*texts(9), torch.zeros(1, 9))


# ------------------------------------------------------------------------------------------------- what users do


def test_every_parameter_gets_a_gradient_after_one_step():
    """The readout starts at zero, so the rest moves from the second step on."""
    reading = cube(rule=RULES["gather and drive"])
    optimizer = torch.optim.SGD(reading.parameters(), lr=0.1)
    tokens, mask = texts(5, 3)
    for _ in range(2):
        optimizer.zero_grad()
        reading(tokens, mask).square().mean().backward()
        optimizer.step()
    assert all(p.grad.any() for p in reading.parameters())


def test_a_cube_survives_copying_pickling_and_its_state_dict():
    reading, (tokens, mask) = drawn(cube("periodic", out=4)), texts(5, 3)
    expected = reading(tokens, mask)
    other = cube("periodic", out=4)
    assert not torch.equal(other(tokens, mask), expected)
    other.load_state_dict(reading.state_dict())
    for same in (copy.deepcopy(reading), pickle.loads(pickle.dumps(reading)), other):
        assert torch.equal(same(tokens, mask), expected)


def test_parameters_are_drawn_anew():
    """Those of the lattice too, and an untrained cube is the weighted mean again."""
    reading, (tokens, mask) = drawn(cube(out=4)), texts(5, 3)
    before = {name: p.clone() for name, p in reading.named_parameters()}
    torch.manual_seed(5)
    reading.reset_parameters()
    assert not any(torch.equal(p, before[name]) for name, p in reading.named_parameters())
    assert torch.equal(reading(tokens, mask), TokenReading(DIM, 4)(tokens, mask))
    drawn_once = copy.deepcopy(reading.state_dict())
    torch.manual_seed(5)
    reading.reset_parameters()
    assert all(torch.equal(p, drawn_once[name]) for name, p in reading.state_dict().items())
    bag = drawn(TokenReading(DIM))
    bag.reset_parameters()
    assert torch.equal(bag(tokens, mask), TokenReading(DIM)(tokens, mask))


def test_no_global_random_state_is_touched_by_a_call():
    reading, (tokens, mask) = cube(rule=Rule(hidden=5, fire_rate=0.5)), texts(5, 3)
    before = torch.get_rng_state()
    reading(tokens, mask, seed=1).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_rule_without_parameters_is_a_context_too():
    blur = Rule(filters=0, fixed_filters=("identity",), hidden=0, own_state=False, update="replace", squash="identity")
    context = TokenLattice(Lattice((1, 1, 4), 3, "line"), blur, 2)
    h, mask = texts(4, 2, width=3)
    assert list(context.parameters()) == []
    assert torch.equal(context(h, mask), h.masked_fill(~mask[..., None], 0))


# -------------------------------------------------------------------------------------------------------- refusals

TOKENS, MASK = torch.zeros(2, 3, DIM), torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2, 3, 5), MASK), ValueError, r"tokens has shape \[2, 3, 5\]; it takes \[B, L, 6\]"),
        ((torch.zeros(3, DIM), MASK), ValueError, r"tokens has shape \[3, 6\]; it takes \[B, L, 6\]"),
        ((TOKENS.double(), MASK), TypeError, "tokens is torch.float64, but its parameters are torch.float32"),
        ((TOKENS.long(), MASK), TypeError, "tokens is torch.int64, but its parameters are torch.float32"),
        ((TOKENS.to("meta"), MASK), ValueError, "tokens is on meta, but its parameters are on cpu"),
        ((TOKENS.half().to("meta"), MASK), TypeError, "tokens is torch.float16"),
        ((TOKENS, MASK[:, :2]), ValueError, r"mask has shape \[2, 2\]; expected \[2, 3\]"),
        ((TOKENS, MASK.long()), TypeError, "mask is torch.int64; it takes torch.bool, True where a token is"),
        ((TOKENS, MASK.to("meta")), ValueError, "mask is on meta, but tokens is on cpu; they must agree"),
        ((TOKENS, MASK, torch.zeros(2)), ValueError, r"log_weight has shape \[2\]; expected \[2, 3\]"),
        ((TOKENS, MASK, MASK), TypeError, "log_weight is torch.bool; it takes a floating-point dtype"),
        ((TOKENS, MASK, torch.zeros(2, 3, device="meta")), ValueError, "log_weight is on meta, but tokens is on cpu"),
    ],
)
def test_a_wrong_text_is_refused(arguments, error, message):
    """By name of the class that was called."""
    for reading in (TokenReading(DIM), cube()):
        with pytest.raises(error, match=f"^{type(reading).__name__}: {message}"):
            reading(*arguments)


def test_autocast_does_not_let_float64_in():
    """It would not cast it."""
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match="float64.*float32"):
        cube()(TOKENS.double(), MASK)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2, 3, 15), MASK), ValueError, r"h has shape \[2, 3, 15\]; it takes \[B, L, 16\]"),
        ((torch.zeros(2, 3, 16).half(), MASK), TypeError, "h is torch.float16, but its parameters are torch.float32"),
        ((torch.zeros(2, 3, 16), MASK.float()), TypeError, "mask is torch.float32; it takes torch.bool"),
        ((torch.zeros(2, 3, 16), MASK, 5), ValueError, "seed is 5, but the rule's fire_rate is 1.0"),
    ],
)
def test_a_wrong_text_is_refused_by_a_lattice(arguments, error, message):
    with pytest.raises(error, match=message):
        TokenLattice(Lattice((2, 2, 3), 4), Rule(hidden=4), 1)(*arguments)


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"dim": 0}, ValueError, "dim is 0; it must be at least 1"),
        ({"dim": 2.0}, TypeError, "dim is 2.0; it takes an integer"),
        ({"out": 0}, ValueError, "out is 0; it must be at least 1"),
        ({"leaving": 3}, ValueError, "leaving is 3, but there is no context; leave it at 0"),
        ({"context": nn.Identity(), "leaving": 3}, ValueError, "entering is 0; it must be at least 1"),
        ({"context": nn.Identity(), "entering": 3}, ValueError, "leaving is 0; it must be at least 1"),
    ],
)
def test_a_reading_that_does_not_fit_is_refused(named, error, message):
    with pytest.raises(error, match=message):
        TokenReading(**{"dim": DIM, **named})


def test_a_seed_without_a_context_and_a_context_of_another_width_are_refused():
    with pytest.raises(ValueError, match="seed is 3, but there is no context that draws; pass None"):
        TokenReading(DIM)(TOKENS, MASK, seed=3)

    class Wide(nn.Module):
        def forward(self, h, mask):
            return torch.cat([h, h], dim=2)

    with pytest.raises(ValueError, match=r"the context returned shape \[2, 3, 8\]; expected \[2, 3, 4\]"):
        TokenReading(DIM, context=Wide(), entering=4, leaving=4)(TOKENS, MASK)

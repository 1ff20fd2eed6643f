"""The lattice's peers: what they compute, that padding does not count, and how many numbers they learn."""

import pytest
import torch
import torch.nn.functional as F

from cube3d.config import ReaderSettings
from cube3d.reader import contexts
from cube3d.reader.contexts import ConvolutionContext, TransformerContext
from cube_kernels import TokenReading

CHANNELS, HIDDEN, LONGEST = 8, 12, 10

CONTEXTS = {
    "convolutions": lambda: ConvolutionContext(CHANNELS, HIDDEN, radius=2, layers=3),
    "transformer": lambda: TransformerContext(CHANNELS, HIDDEN, heads=4, max_length=LONGEST),
}


def test_every_context_of_the_settings_is_here_or_no_module_of_its_own():
    assert {"lattice", "none", *contexts.CONTEXTS} == set(ReaderSettings.model_fields["context"].annotation.__args__)
    assert contexts.CONTEXTS.keys() == CONTEXTS.keys()


@pytest.fixture(params=CONTEXTS)
def context(request):
    torch.manual_seed(0)
    return CONTEXTS[request.param]()


def batch(lengths, longest=LONGEST):
    """Zero in padding, as :class:`TokenReading` gives it to a context."""
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    state = torch.randn(len(lengths), LONGEST, CHANNELS, generator=torch.Generator().manual_seed(1))[:, :longest]
    return state.masked_fill(~mask[..., None], 0), mask


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_padding_does_not_count(context, training):
    """In training and, where torch takes other kernels, without."""
    context.train(training)
    with torch.set_grad_enabled(training):
        padded = context(*batch([1, 4, 7]))
        for row, length in enumerate((1, 4, 7)):
            state, mask = batch([1, 4, 7], length)
            alone = context(state[row : row + 1], mask[row : row + 1])
            assert torch.allclose(padded[row, :length], alone[0], atol=1e-5)


def test_every_token_of_a_transformer_sees_every_other_and_of_convolutions_the_near_ones():
    state, mask = batch([LONGEST])
    for name, make in CONTEXTS.items():
        torch.manual_seed(0)
        context = make()
        changed = state.clone()
        changed[0, 0] = -changed[0, 0]
        seen = (context(changed, mask) - context(state, mask)).abs().amax(dim=2)[0] > 1e-7
        reach = LONGEST if name == "transformer" else 1 + 2 * 3
        assert seen.tolist() == [i < reach for i in range(LONGEST)], name


def test_a_transformer_knows_the_order_of_tokens_and_not_without_its_positions():
    torch.manual_seed(0)
    context = CONTEXTS["transformer"]()
    state, mask = batch([LONGEST])
    assert not torch.allclose(context(state.flip(1), mask).flip(1), context(state, mask), atol=1e-3)
    with torch.no_grad():
        context.position.zero_()
    assert torch.allclose(context(state.flip(1), mask).flip(1), context(state, mask), atol=1e-5)


def test_convolutions_by_hand():
    """Layer by layer, token by token."""
    torch.manual_seed(0)
    context = ConvolutionContext(3, 5, radius=1, layers=2)
    state, mask = torch.randn(1, 4, 3), torch.ones(1, 4, dtype=torch.bool)
    expected = state[0]
    for layer in range(2):
        filters = context.filters[layer].weight[:, 0]  # [6, 3]: two for each channel in turn
        before = torch.cat([torch.zeros(1, 3), expected, torch.zeros(1, 3)])
        rows = []
        for i in range(4):
            percept = [sum(filters[k, j] * before[i + j, k // 2] for j in range(3)) for k in range(6)]
            hidden = F.gelu(context.hidden[layer](torch.cat([expected[i], torch.stack(percept)])))
            rows.append(expected[i] + context.change[layer](hidden))
        expected = torch.stack(rows)
    assert torch.allclose(context(state, mask)[0], expected, atol=1e-5)


def test_parameters():
    count = {name: sum(p.numel() for p in make().parameters()) for name, make in CONTEXTS.items()}
    c, h = CHANNELS, HIDDEN
    perceptron = 3 * c * h + h + h * c + c
    assert count["convolutions"] == 3 * (2 * c * 5 + perceptron)
    attention = 4 * c * c + 4 * c
    assert count["transformer"] == LONGEST * c + attention + (c * h + h + h * c + c) + 2 * 2 * c


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_text_without_tokens_spoils_nothing(context, training):
    context.train(training)
    reading = TokenReading(6, 6, context, CHANNELS, CHANNELS).train(training)
    for parameter in reading.read.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randn(3, LONGEST, 6, generator=torch.Generator().manual_seed(2), requires_grad=training)
    mask = torch.arange(LONGEST) < torch.tensor([0, 4, 1])[:, None]
    with torch.set_grad_enabled(training):
        found = reading(tokens, mask)
        assert found.isfinite().all()
        assert torch.allclose(found[1:], reading(tokens[1:], mask[1:]), atol=1e-5)
        if training:
            found.square().sum().backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in reading.parameters())
            assert tokens.grad.isfinite().all()
            assert not tokens.grad[0].any()


def test_all_texts_without_tokens(context):
    state, mask = batch([0, 0])
    kept = context(state, mask).masked_fill(~mask[..., None], 0)
    kept.sum().backward()
    assert not kept.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in context.parameters())

"""The table of token vectors: what each number format keeps of them, against a plain loop."""

import pytest
import torch

from cube3d.reader.table import TokenTable

STORAGES = ["float32", "float16", "int8"]


def table_of(vectors) -> TokenTable:
    table = TokenTable(*vectors.shape)
    with torch.no_grad():
        table.vectors.copy_(vectors)
    return table


def rows(table) -> torch.Tensor:
    return table(torch.arange(len(table))).detach()


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 24, generator=generator) * torch.logspace(-3, 1, 40)[:, None]


def test_int8_keeps_each_number_to_half_a_step_of_its_row(vectors):
    found = rows(table_of(vectors).stored("int8"))
    for row, kept in zip(vectors.tolist(), found.tolist(), strict=True):
        step = max(abs(x) for x in row) / 127
        for x, y in zip(row, kept, strict=True):
            assert abs(x - y) <= step / 2 * (1 + 1e-5)
            assert y / step == pytest.approx(round(y / step), abs=1e-4)


def test_int8_keeps_the_largest_number_of_a_row(vectors):
    found = rows(table_of(vectors).stored("int8"))
    largest = vectors.abs().argmax(dim=1, keepdim=True)
    assert torch.allclose(found.gather(1, largest), vectors.gather(1, largest), rtol=1e-6)


def test_float16_keeps_eleven_binary_digits(vectors):
    found = rows(table_of(vectors).stored("float16"))
    for x, y in zip(vectors.flatten().tolist(), found.flatten().tolist(), strict=True):
        assert abs(x - y) <= max(abs(x) * 2**-11, 2**-25)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_row_of_zeros_stays_one(storage):
    vectors = torch.zeros(3, 8)
    vectors[1] = torch.arange(8.0)
    found = rows(table_of(vectors).stored(storage))
    assert torch.equal(found[[0, 2]], torch.zeros(2, 8))
    assert torch.allclose(found[1], vectors[1], atol=0.03)


@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-8, 1e-5, 1e4, 6.6e4, 1e7, 1e38])
@pytest.mark.parametrize("storage", STORAGES)
def test_extreme_rows_stay_finite_and_spoil_no_others(storage, size):
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    others = vectors[[0, 2]].clone()
    vectors[1] *= size
    found = rows(table_of(vectors).stored(storage))
    assert found.isfinite().all()
    assert torch.allclose(found[[0, 2]], others, atol=0.02)


@pytest.mark.parametrize("size", [1e-30, 1e-8, 1e-5, 1e4, 1e30])
def test_int8_keeps_directions_of_rows_of_any_size(size):
    """A scale in float16 would round to zero, or to infinity."""
    vectors = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    found = rows(table_of(vectors * size).stored("int8")) / size
    assert torch.nn.functional.cosine_similarity(found, vectors).min() > 0.9999


def test_float16_takes_what_is_too_large_for_its_largest():
    found = rows(table_of(torch.tensor([[1e6, -1e6, 1.0]])).stored("float16"))
    assert found.tolist() == [[65504.0, -65504.0, 1.0]]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_stored_table_gives_the_same_after_saving_and_in_any_shape(vectors, storage, tmp_path):
    table = table_of(vectors).stored(storage)
    torch.save(table.state_dict(), tmp_path / "table.pt")
    again = TokenTable(40, 24, storage)
    again.load_state_dict(torch.load(tmp_path / "table.pt"))
    tokens = torch.tensor([[3, 3, 0], [39, 1, 7]])
    assert torch.equal(again(tokens), table(tokens))
    assert again(tokens).shape == (2, 3, 24)
    assert again(tokens).dtype == torch.float32
    assert torch.equal(again(tokens)[0, 0], rows(table)[3])


def test_storing_twice_changes_nothing_more(vectors):
    once = table_of(vectors).stored("int8")
    twice = once.stored("float32").stored("int8")
    assert torch.equal(once.codes, twice.codes)
    assert torch.allclose(once.scale, twice.scale, rtol=1e-6)


def test_float32_alone_is_trained(vectors):
    assert [name for name, _ in TokenTable(4, 2).named_parameters()] == ["vectors"]
    for storage in ("float16", "int8"):
        assert not list(table_of(vectors).stored(storage).parameters())


def test_bytes_of_a_row():
    sizes = {
        storage: sum(x.numel() * x.element_size() for x in TokenTable(10, 24, storage).state_dict().values()) / 10
        for storage in STORAGES
    }
    assert sizes == {"float32": 96, "float16": 48, "int8": 28}

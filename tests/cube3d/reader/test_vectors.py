"""Token vectors: centered, unit, zero for what is no text; their principal components; weights by frequency."""

import math

import pytest
import torch
import torch.nn.functional as F

from cube3d.errors import UserError
from cube3d.reader.vectors import CHUNK, log_weights, mapped, reduced, static_vectors
from tests.cube3d.reader.made import LetterTeacher, ensemble_of


def test_a_tokens_vector_is_what_the_teacher_says_of_it_less_the_mean_of_all():
    teacher = LetterTeacher()
    texts = ["a", "", "abb", "x", "a", "h"]
    found = static_vectors(texts, ensemble_of(teacher))
    said = F.normalize(teacher.counted(["a", "abb", "h"]), dim=-1)
    a, abb, h = F.normalize(said - said.mean(0), dim=-1)
    zero = torch.zeros(9)
    assert torch.allclose(found, torch.stack([a, zero, abb, zero, a, h]), atol=1e-6)
    assert found.dtype == torch.float32


def test_each_text_is_asked_for_once():
    teacher = LetterTeacher("abcdefgh  .")
    static_vectors(["a", "b", "a", "", "c", "b"], ensemble_of(teacher))
    assert teacher.asked == [["a", "b", "c"]]


def test_every_teacher_must_read_a_token():
    found = static_vectors(["a", "b", "c", "d"], ensemble_of(LetterTeacher("abcd"), LetterTeacher("bcde")))
    assert found.norm(dim=1).tolist() == pytest.approx([0, 1, 1, 1])


def test_many_tokens_keep_their_order():
    """More than are embedded at a time."""
    texts = ["a" * (i % 40) + "b" * (i // 40 + 1) for i in range(2 * CHUNK + 3)]
    teacher = LetterTeacher()
    said = F.normalize(teacher.counted(texts), dim=-1)
    expected = F.normalize(said - F.normalize(teacher.counted(list(dict.fromkeys(texts))), dim=-1).mean(0), dim=-1)
    assert torch.allclose(static_vectors(texts, ensemble_of(teacher)), expected, atol=1e-5)


@pytest.mark.parametrize("texts", [[], [""], ["x", "y"], ["a", "a", "x"]])
def test_a_teacher_that_can_read_no_token_is_an_error(texts):
    with pytest.raises(UserError, match=rf"can read [01] of the {len(texts)} tokens"):
        static_vectors(texts, ensemble_of(LetterTeacher()))


def test_principal_components_are_those_of_the_singular_values():
    vectors = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -2, 8)
    components, back = reduced(vectors, 3)
    u, s, v = torch.linalg.svd(vectors, full_matrices=False)
    assert components.shape == (50, 3)
    assert torch.allclose(components @ back, u[:, :3] * s[:3] @ v[:3], atol=1e-4)
    assert torch.allclose(back @ back.T, torch.eye(3), atol=1e-5)


def test_all_components_give_the_vectors_back():
    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    components, back = reduced(vectors, 8)
    assert torch.allclose(components @ back, vectors, atol=1e-5)


def test_vectors_of_another_space_are_mapped_as_near_as_a_linear_map_can():
    """The map that made them is found; where none did, the rest is at right angles to every dimension. A dimension that
    is empty is no obstacle."""
    draw = torch.Generator().manual_seed(0)
    vectors, map_ = torch.randn(60, 5, generator=draw), torch.randn(5, 8, generator=draw)
    torch.testing.assert_close(mapped(vectors, vectors @ map_), map_, rtol=1e-4, atol=1e-5)
    vectors[:, 2] = 0
    others = torch.randn(60, 8, generator=draw)
    rest = others - vectors @ mapped(vectors, others)
    torch.testing.assert_close(vectors.T @ rest, torch.zeros(5, 8), rtol=0, atol=1e-4)


def test_more_components_than_dimensions_are_an_error():
    with pytest.raises(UserError, match="reader.width is 9; the teachers' vectors have 8 dimensions"):
        reduced(torch.randn(20, 8), 9)


def test_weights_are_the_logarithm_of_the_smooth_inverse_frequency():
    found = log_weights(torch.tensor([0, 1, 999]))
    expected = [math.log(1e-3 / (1e-3 + p)) for p in (0, 1 / 1000, 999 / 1000)]
    assert found.tolist() == pytest.approx(expected)
    assert found.dtype == torch.float32


def test_without_counts_all_weigh_the_same():
    assert log_weights(torch.zeros(3, dtype=torch.int64)).tolist() == [0, 0, 0]

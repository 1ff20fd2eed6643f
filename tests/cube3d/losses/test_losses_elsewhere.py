"""The same losses, miners and memory in pytorch-metric-learning and sentence-transformers."""

import pytest
import torch
import torch.nn.functional as F

from cube3d.config import LOSS_NAMES, LossSettings, NegativeSettings
from cube3d.losses import (
    CosineLoss,
    DiversityLoss,
    InfoNCELoss,
    MSELoss,
    Objective,
    RelationalDistillationLoss,
    TripletLoss,
)
from cube3d.losses.negatives import chosen
from tests.cube3d.losses.test_losses import GROUPS, batch_of

ROWS, DIM = len(GROUPS), 5
DISTINCT = list(range(ROWS))


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(ROWS, DIM, generator=generator), torch.randn(ROWS, DIM, generator=generator)


@pytest.fixture(scope="module")
def metric_learning():
    return pytest.importorskip("pytorch_metric_learning", reason="it computes the same losses")


@pytest.fixture(scope="module")
def sentence_losses():
    pytest.importorskip("sentence_transformers", reason="it computes the same losses")
    from sentence_transformers.sentence_transformer import losses

    return losses


def pairs(negative):
    """Triplets ``(anchor, positive, negative)`` of a mask ``[B, N]``, the positive being the anchor's own answer."""
    anchors, negatives = negative.nonzero(as_tuple=True)
    return anchors, anchors, negatives


def test_triplet(metric_learning, vectors):
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.reducers import MeanReducer

    prediction, answer = vectors
    labels = torch.tensor(DISTINCT)  # as many negatives for each row: the mean of means is the mean over triplets
    batch = batch_of(prediction, answer, DISTINCT)
    theirs = TripletMarginLoss(margin=0.2, distance=CosineSimilarity(), reducer=MeanReducer())
    expected = theirs(prediction, labels, pairs(batch.negative), ref_emb=answer, ref_labels=labels.clone())
    assert expected > 0
    assert TripletLoss(0.2)(batch).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("groups", [DISTINCT, GROUPS], ids=["distinct", "with answers left out"])
def test_info_nce_in_metric_learning(groups, metric_learning, vectors):
    from pytorch_metric_learning.losses import NTXentLoss

    prediction, answer = vectors
    batch = batch_of(prediction, answer, groups)
    anchors, _, negatives = pairs(batch.negative)
    rows = torch.arange(ROWS)
    expected = NTXentLoss(temperature=0.1)(
        prediction, rows, (rows, rows, anchors, negatives), ref_emb=answer, ref_labels=rows.clone()
    )
    assert InfoNCELoss(0.1)(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_info_nce_in_sentence_transformers(sentence_losses, vectors):
    prediction, answer = vectors
    theirs = sentence_losses.MultipleNegativesRankingLoss(None, scale=10.0)
    expected = theirs.compute_loss_from_embeddings([prediction, answer], None)
    assert InfoNCELoss(0.1)(batch_of(prediction, answer, DISTINCT)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_cosine_and_mse(vectors):
    prediction, answer = vectors
    batch = batch_of(prediction, answer)
    expected = F.cosine_embedding_loss(prediction, answer, torch.ones(ROWS))
    assert CosineLoss()(batch).item() == pytest.approx(expected.item(), rel=1e-5)
    assert MSELoss()(batch).item() == pytest.approx(DIM * F.mse_loss(prediction, answer).item(), rel=1e-5)


def test_diversity(sentence_losses, vectors):
    prediction, answer = vectors
    theirs = sentence_losses.GlobalOrthogonalRegularizationLoss(None)
    terms = theirs.compute_loss_from_embeddings([prediction])
    expected = terms["gor_mean"] + terms["gor_second_moment"]
    assert terms["gor_second_moment"] > 0
    assert DiversityLoss()(batch_of(prediction, answer, DISTINCT)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_distillation(vectors, sentence_losses):
    """Theirs takes a query's scores of candidates: here a row's scores of the other rows."""
    prediction, answer = vectors
    theirs = sentence_losses.DistillKLDivLoss(None, similarity_fct=_row_cosine, temperature=3.0)
    others = [[j for j in range(ROWS) if j != i] for i in range(ROWS)]
    columns = [prediction[[other[k] for other in others]] for k in range(ROWS - 1)]
    labels = torch.stack([_row_cosine(answer, answer[[other[k] for other in others]]) for k in range(ROWS - 1)], dim=1)
    expected = theirs.compute_loss_from_embeddings([prediction, *columns], labels)
    actual = RelationalDistillationLoss(3.0)(batch_of(prediction, answer))
    assert actual.item() == pytest.approx(expected.item(), rel=1e-4)


def _row_cosine(one, other):
    return F.cosine_similarity(one, other, dim=-1)


def choice(batch, choose, count=None, margin=0.2):
    settings = NegativeSettings(choose=choose, count=count)
    return chosen(batch.negative, batch.positive, batch.similarity, settings, margin)


def test_hard_negatives(metric_learning, vectors):
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.miners import BatchHardMiner

    prediction, answer = vectors
    labels = torch.tensor(GROUPS)
    miner = BatchHardMiner(distance=CosineSimilarity())  # with the labels themselves it would leave out the diagonal
    anchors, _, negatives = miner(prediction, labels, answer, labels.clone())
    expected = torch.zeros(ROWS, ROWS, dtype=torch.bool)
    expected[anchors, negatives] = True
    assert torch.equal(choice(batch_of(prediction, answer), "hard", count=1), expected)


def test_semi_hard_negatives(metric_learning, vectors):
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.miners import TripletMarginMiner

    prediction, answer = vectors
    labels = torch.tensor(DISTINCT)
    miner = TripletMarginMiner(margin=0.5, type_of_triplets="semihard", distance=CosineSimilarity())
    anchors, _, negatives = miner(prediction, labels, answer, labels.clone())
    expected = torch.zeros(ROWS, ROWS, dtype=torch.bool)
    expected[anchors, negatives] = True
    assert 0 < expected.sum() < ROWS * (ROWS - 1)
    assert torch.equal(choice(batch_of(prediction, answer, DISTINCT), "semi_hard", margin=0.5), expected)


def test_info_nce_over_a_memory_is_theirs(metric_learning):
    """Four batches in turn, each of groups of its own: the loss over a batch's answers and those that a memory of 10
    keeps of the earlier ones."""
    from pytorch_metric_learning.losses import CrossBatchMemory, NTXentLoss

    generator = torch.Generator().manual_seed(5)
    settings = LossSettings(
        **{**dict.fromkeys(LOSS_NAMES, 0.0), "info_nce": 1.0, "temperature": 0.1},
        negatives=NegativeSettings(pool="batch", memory=10),
    )
    objective = Objective(settings, DIM).train()
    theirs = CrossBatchMemory(NTXentLoss(temperature=0.1), DIM, memory_size=10 + 4)
    for step in range(4):
        prediction, answer = torch.randn(2, 4, DIM, generator=generator)
        group = torch.arange(4) + 4 * step
        total, _ = objective(prediction, answer, group)
        # Theirs stores what it is told to and compares the rest with the memory: the batch itself included.
        mask = torch.arange(8) >= 4
        expected = theirs(torch.cat([prediction, answer]), group.repeat(2), enqueue_mask=mask)
        assert total.item() == pytest.approx(expected.item(), rel=1e-5), step

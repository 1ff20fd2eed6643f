"""Ridge regression from a question's vector to its answer's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cube3d.metrics import ranks
from cube3d.vectors import Parts

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True, eq=False)
class Linear:
    """``q · map + shift``, computed in float64, in the precision of the question.

    Attributes:
        map: ``[dim, dim]``, float64.
        shift: ``[dim]``, float64.
    """

    map: Tensor
    shift: Tensor

    def __call__(self, questions: Tensor) -> Tensor:
        return (questions.double() @ self.map + self.shift).to(questions.dtype)


def ridge(parts: Parts, residual: bool) -> Linear:
    """Linear least squares with an L2 penalty and an intercept, from the question to the answer or (residual)
    to what the answer adds to the question; the penalty with the best validation MRR
    (Hoerl and Kennard, 1970)."""
    x = parts.train.question.double()
    y = parts.train.answer.double() - (x if residual else 0)
    x_mean, y_mean = x.mean(0), y.mean(0)
    gram, cross = (x - x_mean).T @ (x - x_mean), (x - x_mean).T @ (y - y_mean)

    def fitted(penalty: float) -> Linear:
        eye = torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.linalg.solve(gram + penalty * eye, cross)
        return Linear(weight + eye if residual else weight, y_mean - x_mean @ weight)

    def validation_mrr(predict: Linear) -> float:
        return (1 / ranks(predict(parts.validation.question), parts.validation)).mean().item()

    return max(map(fitted, PENALTIES), key=validation_mrr)

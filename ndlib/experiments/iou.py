"""How well the pixels of pictures were classified: confusion matrix and mean intersection over union (IoU).

Cityscapes tells 34 kinds of thing apart (``labelIds``). Two ways of making classes of them:

* **19 classes**, the standard: 19 kinds are classes 0 to 18; all others are ignored (255), in training and scoring.
* **21 classes**, of the authors' code: the same 19 kinds are classes 1 to 19; all others together are class 0, "void",
  which is learnt and scored like any class. The network has a 21st output, class 20, to which no pixel belongs. Ignored
  is only what was padded. The score is the mean over all 21, the class that never occurs with an IoU of 0: a perfect
  prediction scores 20/21 = 95.2 %.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "IGNORED",
    "NEVER",
    "VOID",
    "Scores",
    "class_iou",
    "confusion_matrix",
    "mean_iou",
    "scores_19",
    "scores_21",
    "scores_all",
    "standard_iou",
]

IGNORED = 255  # class of a pixel that counts nowhere
VOID, NEVER = 0, -1  # the first and the last of the 21 classes of Cityscapes

Scores = Callable[[Tensor], dict[str, float]]


def confusion_matrix(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """How many pixels of each class (rows) were given to each class (columns); those with target 255 count nowhere.

    Args:
        predicted, target: whole numbers, of any one shape.

    Returns:
        Counts, shape (classes, classes).

    Raises:
        ValueError: shapes that differ, or a class that is neither 255 nor below ``classes``.

    >>> confusion_matrix(torch.tensor([1, 1, 0]), torch.tensor([0, 1, 255]), 2).tolist()
    [[0, 1], [0, 1]]
    """
    if predicted.shape != target.shape:
        raise ValueError(f"a prediction of shape {tuple(predicted.shape)} for labels of {tuple(target.shape)}")
    counted = target != IGNORED
    predicted, target = predicted[counted], target[counted]
    for what, values in (("the labels", target), ("the prediction", predicted)):
        if ((values < 0) | (values >= classes)).any():
            raise ValueError(f"{what} hold a class outside 0 to {classes - 1}; are there {classes} classes?")
    return torch.bincount(target * classes + predicted, minlength=classes**2).reshape(classes, classes)


def class_iou(confusion: Tensor) -> Tensor:
    """TP / (TP + FP + FN) of each class, between 0 and 1; NaN for a class that is neither there nor predicted.

    >>> class_iou(torch.tensor([[3, 1], [2, 4]])).tolist() == [3 / 6, 4 / 7]
    True
    """
    confusion = confusion.double()
    both = confusion.diagonal()
    return both / (confusion.sum(0) + confusion.sum(1) - both)


def mean_iou(confusion: Tensor, *, absent: float | None = None) -> float:
    """The mean of :func:`class_iou`, between 0 and 1.

    A class that is neither there nor predicted is left out, or, if ``absent`` is a number, counts with that.

    >>> confusion = torch.tensor([[1, 0], [0, 0]])
    >>> mean_iou(confusion), mean_iou(confusion, absent=0.0)
    (1.0, 0.5)
    """
    iou = class_iou(confusion)
    return float(iou.nanmean() if absent is None else iou.nan_to_num(absent).mean())


def standard_iou(confusion: Tensor) -> Tensor:
    """The IoUs of a network that has the class "void" first and one that never occurs last, over the classes between.

    As the standard counts: what happens on void pixels does not matter, and a pixel that was called void is a miss.

    >>> confusion = torch.tensor([[0, 4, 0], [1, 3, 0], [0, 0, 0]])  # void, road, never
    >>> standard_iou(confusion).tolist()  # void called road is no mistake, road called void is one
    [0.75]
    """
    confusion = confusion.clone()
    confusion[[VOID, NEVER]] = 0
    return class_iou(confusion)[VOID + 1 : NEVER]


def scores_all(confusion: Tensor) -> dict[str, float]:
    """Percent, over all classes that are there or predicted, under the name ``miou``.

    >>> scores_all(torch.tensor([[1, 0], [0, 1]]))
    {'miou': 100.0}
    """
    return {"miou": 100 * mean_iou(confusion)}


def scores_19(confusion: Tensor) -> dict[str, float]:
    """The same for Cityscapes in 19 classes, under the name ``miou_19``.

    >>> scores_19(torch.tensor([[1, 0], [0, 1]]))
    {'miou_19': 100.0}
    """
    return {"miou_19": 100 * mean_iou(confusion)}


def scores_21(confusion: Tensor) -> dict[str, float]:
    """Percent by both counts: ``miou_19`` as the standard has it, and ``miou_21`` as the authors' code has it.

    Their code also adds 1e-5 pixels to each denominator; here that is left out.

    >>> scores_21(torch.diag(torch.tensor([1] * 20 + [0])))  # a perfect prediction
    {'miou_19': 100.0, 'miou_21': 95.23809523809523}
    """
    both = float(standard_iou(confusion).nanmean()), mean_iou(confusion, absent=0.0)
    return {"miou_19": 100 * both[0], "miou_21": 100 * both[1]}

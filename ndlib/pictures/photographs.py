"""Ten photographs that are always there, and their luminance."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["PHOTOGRAPHS", "luminance", "photograph", "pixels"]

PHOTOGRAPHS = (
    "astronaut",
    "cat",
    "china",
    "coffee",
    "flower",
    "galaxies",
    "motorcycle",
    "retina",
    "rocket",
    "tissue",
)


@cache
def pixels(name: str) -> NDArray[np.uint8]:
    """The pixels of :func:`photograph` as they are stored, uint8 of shape (H, W, 3); all callers share one array.

    >>> pixels("cat").shape
    (300, 451, 3)
    """
    from skimage import data as skimage_data
    from sklearn.datasets import load_sample_image

    sources: dict[str, Callable[[], NDArray[np.uint8]]] = {
        "astronaut": skimage_data.astronaut,
        "cat": skimage_data.chelsea,
        "china": lambda: load_sample_image("china.jpg"),
        "coffee": skimage_data.coffee,
        "flower": lambda: load_sample_image("flower.jpg"),
        "galaxies": skimage_data.hubble_deep_field,
        "motorcycle": lambda: skimage_data.stereo_motorcycle()[0],
        "retina": skimage_data.retina,
        "rocket": skimage_data.rocket,
        "tissue": skimage_data.immunohistochemistry,
    }
    if name not in sources:
        raise ValueError(f"unknown photograph {name!r}; there are {', '.join(PHOTOGRAPHS)}")
    return np.array(sources[name]())


def photograph(name: str) -> Tensor:
    """One of the ten photographs that scikit-image and scikit-learn ship: float32 of shape (3, H, W) in [0, 1].

    Raises:
        ValueError: unknown name; the message lists ``PHOTOGRAPHS``.

    >>> photograph("cat").shape
    torch.Size([3, 300, 451])
    """
    return torch.from_numpy(pixels(name)).permute(2, 0, 1).float() / 255


def luminance(picture: Tensor) -> Tensor:
    """Grey picture of shape (..., H, W) from a colour one of shape (..., 3, H, W): Y of Rec. 709 / sRGB, same units.

    Y = 0.2126 R + 0.7152 G + 0.0722 B.

    >>> round(luminance(torch.tensor([0.0, 1.0, 0.0]).reshape(3, 1, 1)).item(), 4)
    0.7152
    """
    weights = torch.tensor([0.2126, 0.7152, 0.0722], dtype=picture.dtype, device=picture.device)
    return torch.einsum("...chw,c->...hw", picture, weights)

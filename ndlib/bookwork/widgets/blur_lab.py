"""The widget of the chapter on blur: a photograph that is blurred, disturbed with noise, and restored."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...pictures import photographs, restore
from .. import plotting
from . import bundle
from .base import BookWidget

__all__ = ["BlurLab", "noise_field"]

SIDE = 128  # pixels of the square that is shown
OWN = "own"  # the reader's photograph, which stays in the browser


class Photographed(BookWidget):
    """A widget that shows one of three photographs, or one of Python's, or one that stays in the reader's browser."""

    _side: ClassVar[int] = SIDE  # pixels of the square, which divide those of photographs_shown

    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    pictures = traitlets.Bytes().tag(sync=True)  # one after the other, a byte each pixel

    photograph = traitlets.Unicode().tag(sync=True)

    def __init__(self, picture: Tensor | None = None, **traits: Any) -> None:
        shown = photographs_shown()
        if picture is not None:
            shown = {**shown, "yours": square(picture)}
        names, side = list(shown), self._side
        parts = (p.reshape(side, SIDE // side, side, -1).mean((1, 3)).round().astype(np.uint8) for p in shown.values())
        super().__init__(
            names=names,
            pictures=b"".join(pixels.tobytes() for pixels in parts),
            **{"photograph": names[-1] if picture is not None else names[0], **traits},
        )

    @traitlets.validate("photograph")
    def _one_of_names(self, proposal: Any) -> str:
        if proposal["value"] not in [*self.names, OWN]:
            raise traitlets.TraitError(f"photograph must be one of {self.names}, got {proposal['value']!r}")
        return proposal["value"]

    def _pixels(self) -> NDArray[np.float64]:
        """The photograph: 0 black, 1 white."""
        if self.photograph == OWN:
            raise ValueError("the photograph on show is the reader's and stays in the browser; set w.photograph")
        pixels = np.frombuffer(self.pictures, np.uint8).reshape(len(self.names), self._side, self._side)
        return pixels[self.names.index(self.photograph)] / 255


class BlurLab(Photographed):
    """Blur a photograph, add noise, and restore it with the Wiener filter ``conj(H) / (|H|^2 + K)``.

    H is the transfer function of the blur. With K = 0 this is the inverse filter. A photograph that the reader drops
    on the widget never leaves the browser, so Python cannot restore it.

    Args:
        picture: a picture of your own, or None; its middle square is shown, grey and scaled to 128 x 128 pixels.
        photograph: one of ``names``: ``"cat"``, ``"pagoda"``, ``"page"``, or ``"yours"`` if you gave a picture.
        sigma: standard deviation of the Gaussian blur, 0.3 to 5 pixels.
        noise: standard deviation of the noise, in units of the picture; 1 / 255 is one grey level.
        k: K of the Wiener filter, 0 to 1, without unit.

    The inverse filter turns one grey level of noise into an error of more than the whole range from black to white;
    the Wiener filter does not. ``restored`` is as drawn: shape (128, 128), 0 black, 1 white, not clipped.

    >>> w = BlurLab(sigma=1, noise=1 / 255, k=0)
    >>> bool((w.restored - w.picture).std() > 1)
    True
    >>> w.k = 0.008                                          # Python can set whatever the reader can
    >>> bool((w.restored - w.picture).std() < 0.1)
    True
    >>> BlurLab(picture=torch.rand(3, 40, 60)).photograph    # a picture of your own
    'yours'
    """

    _name = "blur-lab"
    _esm = bundle.module(_name)
    _css = bundle.style(_name)

    sigma = traitlets.Float(1.0, min=0.3, max=5.0).tag(sync=True)
    noise = traitlets.Float(1 / 255, min=0.0, max=0.2).tag(sync=True)
    k = traitlets.Float(0.008, min=0.0, max=1.0).tag(sync=True)

    @property
    def picture(self) -> NDArray[np.float64]:
        """The photograph: (128, 128), 0 black, 1 white."""
        return self._pixels()

    @property
    def blurred(self) -> NDArray[np.float64]:
        """The photograph after blur and noise, as drawn."""
        kernel = restore.gaussian_kernel(self.sigma)
        return restore.convolve(torch.from_numpy(self.picture), kernel).numpy() + self.noise * noise_field()

    @property
    def restored(self) -> NDArray[np.float64]:
        """``blurred`` after the filter, as drawn.

        Raises:
            ValueError: K is 0, and the blur has no inverse.
        """
        kernel, blurred = restore.gaussian_kernel(self.sigma), torch.from_numpy(self.blurred)
        if self.k == 0:
            return restore.inverse_filter(blurred, kernel).numpy()
        return restore.wiener(blurred, kernel, self.k).numpy()

    def describe(self) -> str:
        before, after = (255 * np.sqrt(((p - self.picture) ** 2).mean()) for p in (self.blurred, self._shown()))
        return (
            f"Three pictures: a photograph, the same blurred with a standard deviation of {self.sigma:.3g} pixels and "
            f"with noise of {255 * self.noise:.3g} grey levels, and what the Wiener filter with K = {self.k:.3g} makes "
            f"of that. The blurred one is off by {before:.3g} grey levels, the restored one by {after:.3g}."
        )

    def _shown(self) -> NDArray[np.float64]:
        """What the still picture shows as restored: grey where the blur has no inverse."""
        try:
            return self.restored
        except ValueError:
            return np.full((SIDE, SIDE), 0.5)

    def still(self) -> Figure:
        fig, axes = plotting.panels(1, 3)
        titles = ("photograph", f"blurred by {self.sigma:.3g} px, and noise", f"restored, K = {self.k:.3g}")
        for ax, pixels, title in zip(axes[0], (self.picture, self.blurred, self._shown()), titles, strict=True):
            plotting.show_picture(ax, torch.from_numpy(pixels), title)
        plt.close(fig)
        return fig


@cache
def noise_field() -> NDArray[np.float64]:
    """White noise of standard deviation 1, (128, 128), the same in Python and in JavaScript.

    Park and Miller's generator x -> 16807 x mod (2^31 - 1) from 1 on gives uniform numbers; of each two in turn Box and
    Muller's sqrt(-2 log u) cos(2 pi v) makes a normal one.

    >>> field = noise_field()
    >>> field.shape, round(float(field.mean()), 2), round(float(field.std()), 2)
    ((128, 128), -0.01, 1.0)
    """
    seed, uniform = 1, np.empty((SIDE * SIDE, 2))
    for i in range(uniform.size):
        seed = 16807 * seed % 2147483647
        uniform.flat[i] = seed / 2147483647
    normal = np.sqrt(-2 * np.log(uniform[:, 0])) * np.cos(2 * np.pi * uniform[:, 1])
    return normal.reshape(SIDE, SIDE)


@cache
def photographs_shown() -> dict[str, NDArray[np.uint8]]:
    """Parts of what scikit-image and scikit-learn ship; the cat is the one of the chapter's figures."""
    import skimage.data

    cat = photographs.luminance(photographs.photograph("cat").double())[60:188, 90:218]
    pagoda = photographs.luminance(photographs.photograph("china").double())[20:340, 90:410]
    page = skimage.data.page()[32:160, 96:224]
    return {"cat": square(cat), "pagoda": square(pagoda), "page": np.ascontiguousarray(page)}


def square(picture: Tensor) -> NDArray[np.uint8]:
    """The middle square, grey, scaled to 128 x 128 pixels of one byte."""
    if picture.dim() == 3 and picture.shape[0] == 3:
        picture = photographs.luminance(picture.detach().cpu())
    if picture.dim() != 2 or min(picture.shape) < 2:
        raise ValueError(f"picture must have shape (H, W) or (3, H, W), got {tuple(picture.shape)}")
    pixels = (picture.detach().cpu().double().clamp(0, 1) * 255).round().byte().numpy()
    side = min(pixels.shape)
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    square = Image.fromarray(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS))

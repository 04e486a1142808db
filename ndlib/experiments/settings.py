"""What decides the result of a run, stated once.

The command line, the sweep files, the training loop and the ledger read names, types, defaults, choices and help here.
"""

from __future__ import annotations

import importlib
import itertools
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "KEPT",
    "PREFIX",
    "SIZE",
    "TYPES",
    "Hyperparameters",
    "SettingType",
    "Settings",
    "check_choices",
    "choices_of",
    "folder_name",
    "given_fields",
    "recorded_types",
]

KEPT = ("function", "weights")
PREFIX = "folder:"  # of data sets that are a folder of pictures
SIZE = 224  # pixels, the side of those pictures unless another is asked for


class SettingType(NamedTuple):
    """How the values of a setting are written.

    Args:
        given: type of a value in a sweep file, and of a word on the command line.
        words: the same in words, for messages.
        recorded: type of the value in a line of the ledger.

    >>> TYPES["int | None"]
    SettingType(given=<class 'int'>, words='an integer', recorded=<class 'int'>)
    """

    given: type
    words: str
    recorded: type


# By the annotation of the field. Options are recorded as one text, "block_size=16 n_iter=3".
TYPES = {
    "str": SettingType(str, "a text in quotes", str),
    "int": SettingType(int, "an integer", int),
    "int | None": SettingType(int, "an integer", int),
    "float": SettingType(float, "a number", float),
    "dict[str, Any]": SettingType(dict, "a table", str),
}


def _setting(text: str, default: Any = None, **more: Any) -> Any:
    """A field with its help text; ``choices`` are names, or the place of a table of them in this wing."""
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What the training loop is told, see :func:`.training.fit`; the defaults are the paper's settings for CIFAR.

    ``seed`` decides the order of the images and their augmentation. Optimisers, augmentations, losses and precisions
    are the keys of ``optimizers.OPTIMIZERS`` and of the tables in ``training``. There is one ``schedule``.

    >>> Hyperparameters(epochs=3).lr
    0.1
    """

    epochs: int = _setting("passes over the training images", 20)
    seed: int = _setting("number that decides weights, order of the images and augmentation", 0)
    optimizer: str = _setting(
        "optimiser; muon updates the kernels, and AdamW the other parameters", "sgd", choices="optimizers.OPTIMIZERS"
    )
    lr: float = _setting("learning rate of the first step; it falls to 0 along a cosine", 0.1)
    schedule: str = field(default="cosine", init=False)
    momentum: float = _setting("momentum of SGD and Muon, first beta of AdamW", 0.9)
    weight_decay: float = _setting("L2 penalty of SGD, decoupled decay of AdamW and Muon", 1e-3)
    batch_size: int = _setting("images in a training step", 128)
    augment: str = _setting("random change of every training image", "crop-flip", choices="training.AUGMENTATIONS")
    loss: str = _setting("loss that training minimises", "cross-entropy", choices="training.LOSSES")
    precision: str = _setting(
        "number format of the network; roots are always taken in float32", "float32", choices="training.PRECISIONS"
    )


@dataclass(frozen=True)
class Settings(Hyperparameters):
    """Everything that decides a run's result.

    ``train_images`` and ``test_images`` count images from the first one in canonical order on; None takes all. With
    ``held_out`` the network is tested on that number of training images, those that follow the ones it is trained on,
    and nobody looks at the test images. ``seed`` decides the weights too. ``options`` are those of the deconvolution
    layers, see ``models.build``.

    ``start`` is a file of ``models.save_network``, such as ``weights/vgg-small-bn.npz`` of the project's data, whose
    network is trained on; "" stands for random weights. On another data set the network gets a new classifier. Where
    it has batch normalisation and ``method`` is ``"nd"``, ``keep`` says what the deconvolved network takes over: the
    ``"function"``, by ``conversion.convert_pretrained``, or the ``"weights"`` alone, by ``conversion.convert``.

    >>> Settings("cifar10", "nd", epochs=3, options={"block_size": 16}).command()[4:]
    ['--dataset', 'cifar10', '--method', 'nd', '--option', 'block_size=16', '--epochs', '3']
    """

    dataset: str = field(
        metadata={
            "help": "images to train and to test on: cifar10, ..., see help(ndlib.experiments.datasets.load), or "
            "folder:PATH, a folder of classes or with such folders train and val"
        }
    )
    method: str = field(metadata={"help": "normalisation of the layers", "choices": "models.METHODS"})
    arch: str = _setting("network to train; ndlib models lists them", "vgg-small", choices="models.ARCHITECTURES")
    size: int = _setting("side in pixels of the pictures of a folder (default: 224)", 0, metavar="PIXELS")
    width: float = _setting("factor on the number of hidden channels", 1.0)
    variant: str = _setting(
        "deconvolution as in the authors' code, in all convolutions, or in all with the recommended options",
        "paper",
        choices="models.VARIANTS",
        aliases=("--preset",),
    )
    options: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "option of the deconvolution layers, such as block_size=16 or detach_root=True; may be repeated",
            "flag": "--option",
            "metavar": "NAME=VALUE",
        },
    )
    start: str = _setting(
        "begin with this network, which --save-weights wrote, instead of random weights", "", metavar="FILE.npz"
    )
    keep: str = _setting(
        "what a deconvolved network takes over from a start with batch normalisation", "function", choices=KEPT
    )
    train_images: int | None = _setting("train on the first N images in canonical order (default: all)", metavar="N")
    test_images: int | None = _setting("test on the first N images in canonical order (default: all)", metavar="N")
    held_out: int = _setting(
        "test on the N training images that follow those trained on; test images stay unseen, for choosing settings",
        0,
        metavar="N",
        recorded=False,  # the ledger has "split" and "test_images"
    )

    def command(self) -> list[str]:
        """The command line that repeats the run, in words."""
        words = ["python", "-m", "ndlib", "train"]
        for f in given_fields():
            value = getattr(self, f.name)
            if f.name == "options":
                words += itertools.chain.from_iterable(("--option", f"{k}={v}") for k, v in sorted(value.items()))
            elif value != f.default:
                words += ["--" + f.name.replace("_", "-"), str(value)]
        return words

    def configuration(self) -> dict[str, Any]:
        """The settings under the keys of the ledger."""
        return {name: getattr(self, name) for name in recorded_types()} | {
            "split": "held-out" if self.held_out else "test",
            "test_images": self.held_out or self.test_images,
            "dataset": folder_name(self.dataset),
            "size": self.size or (SIZE if self.dataset.startswith(PREFIX) else 0),
            "options": " ".join(f"{name}={value}" for name, value in sorted(self.options.items())),
            "keep": self.keep if self.start else "",
        }


def folder_name(dataset: str) -> str:
    """The name under which a data set is recorded: that of a folder, without the place on somebody's disk.

    >>> folder_name("folder:/somewhere/imagenet"), folder_name("cifar10")
    ('folder:imagenet', 'cifar10')
    """
    if not dataset.startswith(PREFIX):
        return dataset
    return PREFIX + Path(dataset.removeprefix(PREFIX)).expanduser().resolve().name


def given_fields() -> list[Field[Any]]:
    """The fields of :class:`Settings` that a user gives: data and network first, then the hyperparameters.

    >>> [f.name for f in given_fields()][:3]
    ['dataset', 'method', 'arch']
    """
    training = {f.name for f in fields(Hyperparameters)}
    return sorted((f for f in fields(Settings) if f.init), key=lambda f: f.name in training)


def recorded_types(kind: type[Hyperparameters] = Settings) -> dict[str, type]:
    """The settings that the ledger records, each with the type that its value has there.

    >>> recorded_types()["options"]
    <class 'str'>
    """
    return {f.name: TYPES[str(f.type)].recorded for f in fields(kind) if f.metadata.get("recorded", True)}


def choices_of(setting: Field[Any]) -> tuple[str, ...]:
    """The names that a setting may have; none where it is free.

    >>> {f.name: choices_of(f) for f in given_fields()}["optimizer"]
    ('sgd', 'adamw', 'muon')
    """
    names = setting.metadata.get("choices", ())
    if isinstance(names, str):  # imported when asked for: the ledger reads this module without torch
        module, _, table = names.rpartition(".")
        names = getattr(importlib.import_module(f".{module}", __package__), table)
    return tuple(names)


def check_choices(chosen: Hyperparameters) -> None:
    """Raise ValueError, with the valid names in its message, unless each hyperparameter has one of its names.

    >>> check_choices(Hyperparameters(loss="L2"))
    Traceback (most recent call last):
        ...
    ValueError: loss must be one of cross-entropy, squared-error, got 'L2'
    """
    for f in fields(Hyperparameters):
        value, names = getattr(chosen, f.name), choices_of(f)
        if names and value not in names:
            raise ValueError(f"{f.name} must be one of {', '.join(names)}, got {value!r}")

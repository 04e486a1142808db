"""The training loop: that it learns, that training and test stay apart, that a seed repeats a run."""

import math
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from ndlib import files
from ndlib.experiments import datasets, ledger, models, training
from ndlib.experiments.datasets import Dataset
from ndlib.experiments.settings import Hyperparameters
from ndlib.layers import DeconvLinear, Deconvolution


def coloured(n_train=256, n_test=100, wrong_test_labels=False, seed=0):
    """Two classes, red and blue pictures with noise: any network learns them in an epoch."""
    generator = torch.Generator().manual_seed(seed)

    def part(n):
        labels = torch.randint(2, (n,), generator=generator)
        images = torch.randint(0, 100, (n, 3, 8, 8), generator=generator)
        images[torch.arange(n), 2 * labels] += 100
        return images.to(torch.uint8), labels

    train, (test_images, test_labels) = part(n_train), part(n_test)
    return Dataset("made", *train, test_images, 1 - test_labels if wrong_test_labels else test_labels, ("red", "blue"))


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


ONE_EPOCH = Hyperparameters(epochs=1, batch_size=32)


def fit(dataset, **options):
    chosen = Hyperparameters(**{"epochs": 2, "batch_size": 32} | options)
    return training.fit(small_network(), dataset, chosen, progress=False)


def test_fit_measures_test_accuracy_on_the_test_images():
    """With all test labels wrong, a network that has learnt is right in training and wrong in the test."""
    honest, inverted = fit(coloured()), fit(coloured(wrong_test_labels=True))
    assert honest[-1]["train"] > 90
    assert honest[-1]["test"] > 90
    assert inverted[-1]["train"] == honest[-1]["train"]
    assert inverted[-1]["test"] == pytest.approx(100 - honest[-1]["test"])


def test_fit_measures_training_accuracy_on_the_training_images():
    class AlwaysBlue(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return torch.tensor([0.0, 1.0]).expand(len(x), 2) + 0 * self.unused

    dataset = coloured()
    (epoch,) = training.fit(AlwaysBlue(), dataset, ONE_EPOCH, progress=False)
    assert epoch["train"] == pytest.approx(100 * dataset.train_labels.float().mean().item())
    assert epoch["test"] == pytest.approx(100 * dataset.test_labels.float().mean().item())
    assert epoch["train"] != epoch["test"]


def test_fit_reports_the_mean_loss_over_the_images():
    """A network that says the same of both classes has the loss log 2, whatever the labels are."""

    class Undecided(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return torch.zeros(len(x), 2) + 0 * self.unused

    (epoch,) = training.fit(Undecided(), coloured(), ONE_EPOCH, progress=False)
    assert epoch["loss"] == pytest.approx(math.log(2))


def test_fit_repeats_with_the_same_seed_only():
    losses = [[e["loss"] for e in fit(coloured(), seed=seed)] for seed in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


def test_learning_rate_falls_to_zero_along_a_cosine(monkeypatch):
    rates = []
    step = torch.optim.SGD.step

    def spy(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    fit(coloured(), epochs=2)
    assert len(rates) == 16  # two epochs of 256 / 32 steps
    wanted = [0.05 * (1 + torch.cos(torch.tensor(torch.pi * i / 16)).item()) for i in range(16)]
    assert rates == pytest.approx(wanted, rel=1e-5)


def test_momentum_and_weight_decay_reach_the_optimiser(monkeypatch):
    seen = set()
    step = torch.optim.SGD.step

    def spy(self, *args, **kwargs):
        seen.update((group["momentum"], group["weight_decay"]) for group in self.param_groups)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    fit(coloured(), epochs=1, momentum=0.7, weight_decay=0.02)
    assert seen == {(0.7, 0.02)}


def test_fit_returns_to_training_mode_after_each_evaluation():
    network, modes = small_network(), []
    network.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    training.fit(network, coloured(64, 50), Hyperparameters(epochs=2, batch_size=32), progress=False)
    assert modes == [True, True, False] * 2


def test_fit_leaves_out_the_incomplete_last_batch():
    network, sizes = small_network(), []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])) if module.training else None)
    training.fit(network, coloured(70), ONE_EPOCH, progress=False)
    assert sizes == [32, 32]


def test_accuracy_counts_every_image_once_and_in_evaluation_mode():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.images = 0

        def forward(self, x):
            assert not self.training
            self.images += len(x)
            return torch.tensor([0.0, 1.0]).expand(len(x), 2)

    model = Remembers()
    images, labels = torch.zeros(1203, 1, 2, 2), torch.zeros(1203, dtype=torch.long)
    labels[:401] = 1
    scale = (torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    assert training.accuracy(model, images, labels, scale) == pytest.approx(100 * 401 / 1203)
    assert model.images == 1203


def test_normalised_training_images_have_mean_zero_and_variance_one():
    dataset = coloured()
    mean, std = training.normaliser(dataset, torch.device("cpu"))
    pixels = (dataset.train_images.float() - mean) / std
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_crop_and_flip_moves_whole_images():
    """Every result is one of the (shift, flip) copies of its own image, and all of them occur."""
    images = torch.arange(1.0, 1 + 2 * 3 * 6 * 5).reshape(2, 3, 6, 5)
    padded = nn.functional.pad(images, [1] * 4)
    copies = [
        {
            (i, j, flip): (padded[n, :, i : i + 6, j : j + 5].flip(-1) if flip else padded[n, :, i : i + 6, j : j + 5])
            for i in range(3)
            for j in range(3)
            for flip in (False, True)
        }
        for n in range(2)
    ]
    generator = torch.Generator().manual_seed(0)
    seen = [set(), set()]
    for _ in range(150):
        for n, image in enumerate(training.crop_and_flip(images, generator, padding=1)):
            keys = [key for key, copy in copies[n].items() if torch.equal(copy, image)]
            assert len(keys) == 1
            seen[n].add(keys[0])
    assert all(len(s) == 18 for s in seen)


def test_augmentation_none_leaves_images_alone():
    images = torch.rand(8, 3, 8, 8)
    assert torch.equal(training.AUGMENTATIONS["none"](images, torch.Generator()), images)


def test_resized_crops_are_parts_of_their_images():
    """On ramps the result tells which part was taken: its size and place follow from the values."""
    side = 24
    ramp = (torch.arange(side) + 0.5) / side
    image = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side)])  # x and y of each pixel
    generator = torch.Generator().manual_seed(0)
    out = training.resized_crop_and_flip(image.expand(2000, -1, -1, -1), generator)
    inner = out[:, :, side // 4 : -side // 4, side // 4 : -side // 4]  # away from the borders, where it is reflected
    width = (inner[:, 0, 0, -1] - inner[:, 0, 0, 0]) / (side // 2 - 1) * side
    height = (inner[:, 1, -1, 0] - inner[:, 1, 0, 0]) / (side // 2 - 1) * side
    left = out[:, 0].mean((1, 2)) - width.abs() / 2
    assert (left > -0.02).all() and (left + width.abs() < 1.02).all()
    assert ((width < 0).float().mean() - 0.5).abs() < 0.05  # flipped
    assert (height > 0).all()
    area, ratio = width.abs() * height, width.abs() / height
    assert area.min() > 0.075 and area.max() < 1.01
    assert 0.74 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.35
    assert (area.mean() - 0.48).abs() < 0.04  # large parts of extreme ratio do not fit, so below 0.54
    assert (left[area < 0.2].std() - ((1 - width.abs()[area < 0.2]).square().mean() / 12).sqrt()).abs() < 0.05


def test_squared_error_is_half_the_squared_distance():
    logits = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    assert training.squared_error(logits, torch.tensor([0, 1])).item() == pytest.approx((4 + 1) / 2 / 2)


def test_loss_table_has_squared_error_under_its_name():
    logits = torch.tensor([[1.0, 0.0, 2.0]])
    assert training.LOSSES["squared-error"](logits, torch.tensor([0])).item() == pytest.approx(4 / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": "flip"}, "augment must be one of crop-flip, resized-crop-flip, none, got 'flip'"),
        ({"loss": "L2"}, "loss must be one of cross-entropy, squared-error, got 'L2'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 257}, "batch_size must lie between 1 and the number of training images, 256, got 257"),
    ],
)
def test_fit_refuses_impossible_hyperparameters(options, message):
    with pytest.raises(ValueError, match=message):
        fit(coloured(), **options)


def test_fit_raises_when_the_loss_diverges():
    with pytest.raises(FloatingPointError, match="not finite in epoch 1; try a learning rate below 1e"):
        fit(coloured(), lr=1e30)


def test_fit_names_the_layer_that_met_bad_values():
    """On a GPU the layer only sets a flag, which is looked at once an epoch; here the flag is set by hand."""

    class Flagged(nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.layer = small_network(), DeconvLinear(2, 2)

        def forward(self, x):
            self.layer.nonfinite.fill_(True)
            return self.network(x)

    with pytest.raises(FloatingPointError, match=r"^layer: "):
        training.fit(Flagged(), coloured(), ONE_EPOCH, progress=False)


def test_build_gives_vgg_small_its_normalisation_by_method():
    networks = {m: models.build("vgg-small", method=m, classes=10, width=0.25) for m in ("none", "bn", "nd")}
    kinds = {m: [type(layer).__name__ for layer in n.modules()] for m, n in networks.items()}
    assert kinds["none"].count("Conv2d") == kinds["bn"].count("Conv2d") == kinds["nd"].count("DeconvConv2d") == 5
    assert kinds["bn"].count("BatchNorm2d") == 5
    assert "BatchNorm2d" not in kinds["nd"] + kinds["none"]
    assert "Conv2d" not in kinds["nd"]
    assert "DeconvLinear" in kinds["nd"]
    assert [m.options.n_iter for m in networks["nd"].modules() if isinstance(m, Deconvolution)] == [
        15,
        5,
        5,
        5,
        5,
        5,
    ]
    plain, nd = (sum(p.numel() for p in networks[m].parameters()) for m in ("none", "nd"))
    assert plain == nd
    with pytest.raises(ValueError, match="unknown architecture 'vgg'; there are vgg-small"):
        models.build("vgg", method="bn", classes=10)
    with pytest.raises(ValueError, match="unknown method 'gn'; there are none, bn, nd"):
        models.build("vgg-small", method="gn", classes=10)


@pytest.mark.parametrize("method", ["bn", "nd"])
def test_carried_weights_load_and_match_their_ledger_record(method):
    file = files.path(f"weights/vgg-small-{method}.npz")
    assert file.stat().st_size < 1_000_000
    model, record = models.load_network(file)
    assert record["method"] == method
    assert ledger.migrated(record) in ledger.read(*files.path("results").glob("*.jsonl"))
    folder = Path(os.environ.get("NDLIB_DATA", "nowhere"))
    if not (folder / "cifar10.npz").exists():
        pytest.skip("$NDLIB_DATA has no cifar10.npz, so that the accuracy of the stored network cannot be measured")
    cifar = datasets.load("cifar10").subset(record["train_images"], record["test_images"])
    scale = training.normaliser(cifar, torch.device("cpu"))
    measured = training.accuracy(model, cifar.test_images, cifar.test_labels, scale)
    assert measured == pytest.approx(record["test_last"], abs=0.3)  # half precision moves a few images

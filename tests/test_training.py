"""The training loop: that it learns, that training and test stay apart, that a seed repeats a run."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from ndlib import data, ledger, models, training
from ndlib.data import Dataset
from ndlib.layers import DeconvConv2d, Deconvolution


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


def fit(dataset, **options):
    options = {"epochs": 2, "seed": 0, "batch_size": 32, "progress": False} | options
    return training.fit(small_network(), dataset, **options)


def test_test_accuracy_is_measured_on_the_test_images():
    """With all test labels wrong, a network that has learnt is right in training and wrong in the test."""
    honest, inverted = fit(coloured()), fit(coloured(wrong_test_labels=True))
    assert honest[-1]["train"] > 90
    assert honest[-1]["test"] > 90
    assert inverted[-1]["train"] == honest[-1]["train"]
    assert inverted[-1]["test"] == pytest.approx(100 - honest[-1]["test"])


def test_training_accuracy_is_that_of_the_training_images():
    class AlwaysBlue(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return torch.tensor([0.0, 1.0]).expand(len(x), 2) + 0 * self.unused

    dataset = coloured()
    (epoch,) = training.fit(AlwaysBlue(), dataset, epochs=1, seed=0, batch_size=32, progress=False)
    assert epoch["train"] == pytest.approx(100 * dataset.train_labels.float().mean().item())
    assert epoch["test"] == pytest.approx(100 * dataset.test_labels.float().mean().item())
    assert epoch["train"] != epoch["test"]


def test_a_seed_repeats_a_run_and_another_does_not():
    losses = [[e["loss"] for e in fit(coloured(), seed=seed)] for seed in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


def test_the_learning_rate_falls_to_zero_along_a_cosine(monkeypatch):
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 257}, "batch_size must lie between 1 and the number of training images, 256, got 257"),
    ],
)
def test_impossible_settings_fail_before_training(options, message):
    with pytest.raises(ValueError, match=message):
        fit(coloured(), **options)


def test_a_diverging_run_says_so():
    with pytest.raises(FloatingPointError, match="not finite in epoch 1; try a learning rate below 1e"):
        fit(coloured(), lr=1e30)


def test_networks_and_their_normalisation():
    networks = {m: models.build("vgg-small", method=m, classes=10, width=0.25) for m in ("none", "bn", "nd")}
    kinds = {m: [type(layer).__name__ for layer in n.modules()] for m, n in networks.items()}
    assert kinds["none"].count("Conv2d") == kinds["bn"].count("Conv2d") == kinds["nd"].count("DeconvConv2d") == 5
    assert kinds["bn"].count("BatchNorm2d") == 5
    assert "BatchNorm2d" not in kinds["nd"] + kinds["none"]
    assert "Conv2d" not in kinds["nd"]
    assert "DeconvLinear" in kinds["nd"]
    assert [m.options["n_iter"] for m in networks["nd"].modules() if isinstance(m, Deconvolution)] == [
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


def kinds_of(model):
    return [type(layer).__name__ for layer in model.modules()]


@pytest.mark.parametrize(("arch", "convolutions", "params"), [("vgg16", 13, 14.72e6), ("resnet18", 20, 11.17e6)])
def test_larger_networks(arch, convolutions, params):
    for method in models.blocks.METHODS:
        network = models.build(arch, method=method, classes=10, options={"block_size": 32})
        kinds = kinds_of(network)
        whitened = {"nd": convolutions, "nd-first": 1}.get(method, 0)
        assert kinds.count("DeconvConv2d") == whitened
        assert kinds.count("Conv2d") == convolutions - whitened
        assert kinds.count("BatchNorm2d") == {"bn": convolutions, "nd-first": convolutions - 1}.get(method, 0)
        assert kinds.count("DeconvLinear") == (method == "nd")
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(params, rel=1e-3)
        assert max((m.columns for m in network.modules() if type(m) is DeconvConv2d), default=0) <= 9 * 32
        network.eval()
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_first_layer_deconvolved_and_no_other():
    network = models.build("vgg-small", method="nd-first", classes=10, width=0.25)
    assert kinds_of(network.features)[1] == "DeconvConv2d"
    assert kinds_of(network).count("DeconvConv2d") == 1
    assert network.features[0].options["n_iter"] == 15


@pytest.mark.filterwarnings("ignore:.*rows for a covariance")
@pytest.mark.parametrize("method", ["bn", "nd"])
def test_a_run_its_record_and_its_stored_network(tmp_path, method):
    settings = {"dataset": "photo-patches", "arch": "vgg-small", "method": method, "width": 0.25}
    settings |= {"epochs": 2, "seed": 1}
    settings |= {"train_images": 256, "test_images": 200, "batch_size": 64, "progress": False, "command": ["a", "b c"]}
    settings["options"] = {"solver": "polar", "block_size": 4} if method == "nd" else None
    model, record = training.run(**settings)
    ledger.append(tmp_path / "l.jsonl", record)
    assert ledger.read(tmp_path / "l.jsonl")[0] == record
    assert record["command"] == "a 'b c'"
    assert record["options"] == ("block_size=4 solver=polar" if method == "nd" else "")
    assert record["params"] == sum(p.numel() for p in model.parameters())
    patches = data.load("photo-patches").subset(256, 200)
    assert record["data_sha256"] == patches.sha256()
    scale = training.normaliser(patches, torch.device("cpu"))
    assert training.accuracy(model, patches.test_images, patches.test_labels, scale) == record["test_last"]

    models.save(model, tmp_path / "net.npz", record)
    stored, its_record = models.load(tmp_path / "net.npz")
    assert its_record == record
    assert not stored.training
    x = patches.test_images.float() / 255
    torch.testing.assert_close(stored(x), model.eval()(x), rtol=0.02, atol=0.02)
    assert stored.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("method", ["bn", "nd"])
def test_the_networks_that_the_project_carries(method):
    file = data.path(f"weights/vgg-small-{method}.npz")
    assert file.stat().st_size < 1_000_000
    model, record = models.load(file)
    assert record["method"] == method
    assert record in ledger.read(*data.path("results").glob("*.jsonl"))
    folder = Path(os.environ.get("NDLIB_DATA", "nowhere"))
    if not (folder / "cifar10.npz").exists():
        pytest.skip("$NDLIB_DATA has no cifar10.npz, so that the accuracy of the stored network cannot be measured")
    cifar = data.load("cifar10").subset(record["train_images"], record["test_images"])
    scale = training.normaliser(cifar, torch.device("cpu"))
    measured = training.accuracy(model, cifar.test_images, cifar.test_labels, scale)
    assert measured == pytest.approx(record["test_last"], abs=0.3)  # half precision moves a few images

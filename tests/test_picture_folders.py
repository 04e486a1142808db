"""Folders of pictures as data sets: layouts, splits, reading, and a whole run."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from ndlib import cli, files
from ndlib.experiments import checkpoints, datasets, ledger, runs, training
from ndlib.experiments.settings import Hyperparameters, Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixty pictures of two classes that a small network can tell apart: bright above, bright below."""
    root = tmp_path_factory.mktemp("data") / "shades"
    rng = np.random.default_rng(0)
    for n in range(60):
        pixels = rng.integers(0, 100, (40, 50, 3), np.uint8)
        pixels[20 * (n % 2) : 20 * (n % 2) + 20] += 150
        file = root / ("above", "below")[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return root


def test_split_by_hash_keeps_every_picture_on_its_side(folder, tmp_path):
    data = datasets.load(f"folder:{folder}", size=32)
    train, test = ({file.name for file in part.files} for part in (data.train_images, data.test_images))
    assert len(train) + len(test) == 60 and not train & test and 4 <= len(test) <= 22
    assert data.name == "folder:shades" and data.classes == ("above", "below")
    for part, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        assert [data.classes[n] for n in labels.tolist()] == [file.parent.name for file in part.files]
    shutil.copytree(folder, tmp_path / "shades")
    for file in sorted((tmp_path / "shades").rglob("*.png"))[::2]:
        file.unlink()
    fewer = datasets.load(f"folder:{tmp_path / 'shades'}", size=32)
    assert {file.name for file in fewer.test_images.files} <= test


def test_train_and_val_folders_are_taken_as_they_are(folder, tmp_path):
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "below").symlink_to(folder / "below")  # links are followed
    shutil.copytree(folder / "above", tmp_path / "train" / "above")
    data = datasets.load(f"folder:{tmp_path}", size=32)
    assert len(data.train_images) == 60 and len(data.test_images) == 30
    assert set(data.test_labels.tolist()) == {data.classes.index("below")}
    (tmp_path / "val" / "sideways").symlink_to(folder / "above")
    with pytest.raises(files.DatasetError, match=r"has a class that .*train has not: sideways"):
        datasets.load(f"folder:{tmp_path}")


def test_pictures_are_read_as_torchvision_reads_them(folder):
    data = datasets.load(f"folder:{folder}", size=28).subset(5, 3)
    assert data.train_images.shape == (5, 3, 28, 28)
    found = data.train_images.float()
    for values, file in zip(found, data.train_images.files, strict=True):
        wanted = center_crop(resize(Image.open(file).convert("RGB"), 32), 28)
        assert torch.equal(values, pil_to_tensor(wanted).float())
    assert len(data.hold_out(3, 2).test_images) == 2


@pytest.mark.parametrize("augment", ["resized-crop-flip", "crop-flip"])
def test_augmentation_depends_on_the_seed_of_each_picture_alone(folder, augment, monkeypatch):
    pictures = datasets.load(f"folder:{folder}", size=24).train_images
    examples = [(n, 100 + n) for n in range(8)]
    (several,) = pictures.batches(examples, 8, augment)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: [], raising=False)  # no worker processes
    state = torch.get_rng_state()
    alone = torch.cat(list(pictures.batches(examples, 3, augment)))
    assert torch.equal(several, alone) and several.shape == (8, 3, 24, 24) and several.dtype == torch.uint8
    assert torch.equal(torch.get_rng_state(), state)
    (other,) = pictures.batches([(n, seed + 1) for n, seed in examples], 8, augment)
    assert not torch.equal(other, several)


def test_a_damaged_picture_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "shades")
    for file in (tmp_path / "shades").rglob("*.png"):
        file.write_bytes(file.read_bytes()[:300])
    pictures = datasets.load(f"folder:{tmp_path / 'shades'}").train_images[:1]
    with pytest.raises(files.DatasetError, match=r"\d+\.png cannot be read .*repair it or take it away"):
        pictures.float()


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ([], "is no folder of classes"),
        (["empty/"], "is no folder of classes"),
        (["train/a/1.png"], "has a folder train, and neither val nor test"),
        (["a/1.png"], "has too few pictures"),
    ],
)
def test_other_layouts_are_refused(tmp_path, layout, message):
    for name in layout:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            Image.new("RGB", (20, 20)).save(tmp_path / name)
    with pytest.raises(files.DatasetError, match=message):
        datasets.load(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match="folder:PATH only, not for cifar10"):
        datasets.load("cifar10", size=64)


def test_a_run_on_a_folder_learns_and_is_recorded(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NDLIB_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = f"--dataset folder:{folder} --size 32 --method none --arch logistic --epochs 4 --lr 0.01".split()
    words += ["--batch-size", "16", "--augment", "none"]
    assert cli.main(["train", *words]) == 0
    (record,) = ledger.read(tmp_path / "data" / "results" / "shades.jsonl")
    assert record["dataset"] == "folder:shades" and record["size"] == 32 and record["test_last"] > 85
    assert str(folder) not in json.dumps(record) and "--dataset folder:PATH" in record["command"]
    assert [stretch["epochs"] for stretch in record["stretches"]] == [4]
    assert "plain, logistic regression, shades" in capsys.readouterr().out
    same = {"arch": "logistic", "epochs": 4, "lr": 0.01, "batch_size": 16, "augment": "none"}
    settings = Settings(f"folder:{folder}", "none", size=32, **same)
    (line,) = runs.sweep([settings], tmp_path / "data" / "results" / "shades.jsonl", progress=False)
    assert line.endswith("was there")


def test_an_interrupted_run_on_a_folder_goes_on_with_the_same_numbers(folder, tmp_path):
    data = datasets.load(f"folder:{folder}", size=24)
    chosen = Hyperparameters(epochs=2, batch_size=16, augment="resized-crop-flip", lr=0.01)

    def network():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 24 * 24, 2))

    whole = training.fit(network(), data, chosen, progress=False)
    checkpoint = checkpoints.Checkpoint(tmp_path / "run.pt")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        saved = checkpoints.Checkpoint.save

        def save_once(self, state):
            saved(self, state)
            raise KeyboardInterrupt

        patch.setattr(checkpoints.Checkpoint, "save", save_once)
        training.fit(network(), data, chosen, progress=False, checkpoint=checkpoint, about={"processes": 2})
    assert checkpoints.stretches_in(checkpoint) == [{"epochs": 1, "processes": 2}]
    rest = training.fit(network(), data, chosen, progress=False, checkpoint=checkpoint, about={"processes": 1})
    for ours, wanted in zip(rest, whole, strict=True):
        assert (ours["loss"], ours["test"]) == (wanted["loss"], wanted["test"])
    assert checkpoints.stretches_in(checkpoint) == [{"epochs": 1, "processes": 2}, {"epochs": 1, "processes": 1}]

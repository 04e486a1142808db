"""Segmentation: what a pixel's class is, how predictions are scored, and networks trained on two folders."""

import importlib.util
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import ndlib
from ndlib import __main__
from ndlib.experiments import iou, segmentation, segmentation_data
from ndlib.experiments.iou import IGNORED, confusion_matrix, mean_iou
from ndlib.experiments.segmentation_data import Arrays
from ndlib.files import DatasetError

OFFICIAL = os.environ.get("NDLIB_OFFICIAL")
few_rows = pytest.mark.filterwarnings("ignore:.*rows for a covariance")


# The score -------------------------------------------------------------------------------------------------


def brute_force(predicted, target, classes):
    table = [[0] * classes for _ in range(classes)]
    for p, t in zip(predicted.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != IGNORED:
            table[t][p] += 1
    return torch.tensor(table)


def test_confusion_matrix_is_a_count_of_pixels():
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(5, (3, 17, 19), generator=generator)
    target = torch.randint(6, (3, 17, 19), generator=generator)
    target[target == 5] = IGNORED
    counted = confusion_matrix(predicted, target, 7)
    assert torch.equal(counted, brute_force(predicted, target, 7))
    assert counted.sum() == (target != IGNORED).sum() < target.numel()
    assert not torch.equal(counted, counted.T)


def test_confusion_matrix_has_truth_in_rows_and_prediction_in_columns():
    assert confusion_matrix(torch.tensor([1, 1, 0]), torch.tensor([0, 1, IGNORED]), 2).tolist() == [[0, 1], [0, 1]]


def test_confusion_matrix_leaves_out_ignored_pixels():
    target = torch.tensor([[0, 1, IGNORED], [IGNORED, 1, 0]])
    first, second = target.clone(), target.clone()
    first[target == IGNORED] = 0
    second[target == IGNORED] = 1
    assert torch.equal(confusion_matrix(first, target, 2), confusion_matrix(second, target, 2))
    assert mean_iou(confusion_matrix(first, target, 2)) == 1


def test_iou_equals_a_count_by_hand():
    confusion = torch.tensor([[3, 1, 0], [2, 4, 0], [0, 0, 0]])  # the third class is nowhere
    each = iou.class_iou(confusion)
    assert each[:2].tolist() == pytest.approx([3 / 6, 4 / 7])
    assert math.isnan(each[2])
    assert mean_iou(confusion) == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert mean_iou(confusion, absent=0.0) == pytest.approx((3 / 6 + 4 / 7) / 3)
    assert iou.scores_all(confusion) == {"miou": pytest.approx(100 * (3 / 6 + 4 / 7) / 2)}
    assert iou.scores_19(confusion) == {"miou_19": pytest.approx(100 * (3 / 6 + 4 / 7) / 2)}


def test_mean_iou_counts_a_class_that_is_only_predicted_as_zero():
    assert mean_iou(torch.tensor([[1, 1], [0, 0]])) == pytest.approx((1 / 2 + 0) / 2)


def test_scores_21_of_a_perfect_prediction_are_below_100():
    both = iou.scores_21(torch.diag(torch.tensor([5] * 20 + [0])))
    assert both == {"miou_19": pytest.approx(100), "miou_21": pytest.approx(100 * 20 / 21)}


def test_scores_21_count_void_in_miou_21_only():
    # Truth: 4 pixels void, 4 road (class 1), 8 pavement (class 2).
    confusion = torch.zeros(21, 21, dtype=torch.long)
    confusion[0, 1] = 4  # void called road: a mistake among 21, nothing among 19
    confusion[1, 1] = 3
    confusion[1, 0] = 1  # road called void: a miss in both
    confusion[2, 2] = 6
    confusion[2, 20] = 2  # the class that never occurs, predicted
    both = iou.scores_21(confusion)
    assert both["miou_19"] == pytest.approx(100 * (3 / 4 + 6 / 8) / 2)
    assert both["miou_21"] == pytest.approx(100 * (0 / 5 + 3 / 8 + 6 / 8 + 0 / 2) / 21)
    assert iou.standard_iou(confusion)[:2].tolist() == pytest.approx([3 / 4, 6 / 8])


def official(name):
    if not OFFICIAL:
        pytest.skip("set NDLIB_OFFICIAL to a checkout of yechengxi/deconvolution to run")
    spec = importlib.util.spec_from_file_location("official", Path(OFFICIAL) / "Segmentation" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scores_21_equal_those_of_the_authors_code():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(20, (4, 40, 50), generator=generator)
    target[:, 30:] = IGNORED  # as padding is
    predicted = torch.where(torch.rand(target.shape, generator=generator) < 0.4, target % 21, torch.tensor(3))
    predicted[target == IGNORED] = 1
    theirs = official("utils.py").ConfusionMatrix(21)
    theirs.update(target.flatten(), predicted.flatten())
    ours = confusion_matrix(predicted, target, 21)
    assert torch.equal(ours, theirs.mat)
    assert iou.scores_21(ours)["miou_21"] == pytest.approx(100 * theirs.compute()[2].mean().item(), rel=1e-5)


def test_cityscapes_classes_equal_those_of_the_authors_code():
    theirs = official("datasets/cityscapes.py")
    ids = np.array([[*range(34), 255]], np.uint8)
    table = theirs.Cityscapes
    mapped = np.array(theirs.remap(ids, table.full_classes[:-1], table.new_classes[:-1]))
    assert segmentation_data.cityscapes_classes(21)[ids].tolist() == mapped.tolist()


# Pictures --------------------------------------------------------------------------------------------------

GREY = 7  # a picture is painted with so many grey levels times the value in its label file


def write(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, quality=100)


def label_map(rng, values, height, width):
    """Rectangles of a few values, so that what was done to a picture shows in its labels."""
    labels = np.full((height, width), values[0], np.uint8)
    for _ in range(12):
        top, left = rng.integers(height), rng.integers(width)
        labels[top : top + height // 3, left : left + width // 3] = rng.choice(values)
    return labels


@pytest.fixture
def street(tmp_path):
    """Cityscapes as its two archives unpack: six training and two validation pictures of 96x48 pixels."""
    rng = np.random.default_rng(0)
    for split, city, count in (("train", "aachen", 4), ("train", "bochum", 2), ("val", "frankfurt", 2)):
        for n in range(count):
            stem = f"{city}_{n:06d}_000019"
            labels = label_map(rng, [7, 11, 21, 26, 33, 1], 48, 96)
            write(tmp_path / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", np.stack([labels * GREY] * 3, 2))
            fine = tmp_path / "gtFine" / split / city
            write(fine / f"{stem}_gtFine_labelIds.png", labels)
            write(fine / f"{stem}_gtFine_color.png", np.stack([labels] * 3, 2))
            write(fine / f"{stem}_gtFine_instanceIds.png", labels.astype(np.uint16))
            (fine / f"{stem}_gtFine_polygons.json").write_text('{"imgHeight": 48, "imgWidth": 96, "objects": []}')
    return tmp_path


@pytest.fixture
def animals(tmp_path):
    """Oxford-IIIT Pet as it unpacks: four pictures to train on, two to test on, no two of one size."""
    rng = np.random.default_rng(1)
    root = tmp_path / "oxford-iiit-pet"
    for split, count in (("trainval", 4), ("test", 2)):
        lines = []
        for n in range(count):
            name = f"Abyssinian_{split}_{n}"
            labels = label_map(rng, [2, 1, 3], 60 + n, 70 - n)
            write(root / "images" / f"{name}.jpg", np.stack([labels * 60] * 3, 2))
            write(root / "annotations" / "trimaps" / f"{name}.png", labels)
            lines.append(f"{name} 1 1 1\n")
        (root / "annotations" / f"{split}.txt").write_text("".join(lines))
    return tmp_path


def test_cityscapes_has_the_standard_classes_or_those_of_the_authors(street):
    values = {7: (0, 1), 8: (1, 2), 11: (2, 3), 26: (13, 14), 31: (16, 17), 33: (18, 19)}
    values |= dict.fromkeys((0, 1, 4, 9, 10, 14, 18, 29, 30, 255), (IGNORED, 0))
    for column, classes in enumerate((19, 21)):
        table = segmentation_data.cityscapes_classes(classes)
        assert {value: table[value] for value in values} == {value: pair[column] for value, pair in values.items()}
        known = np.unique(table[[*range(34), 255]])
        assert known.tolist() == ([*range(19), IGNORED] if classes == 19 else list(range(20)))

        data = segmentation_data.cityscapes(street, "train", classes=classes, base_size=48)
        assert (len(data), data.classes) == (6, classes)
        assert [file.name[:6] for file, _ in data.files] == ["aachen"] * 4 + ["bochum"] * 2
        x, y = data.item(5)
        with Image.open(data.files[5][1]) as stored:
            raw = np.asarray(stored)
        assert y.tolist() == table[raw].tolist()  # already of the base size
        mean, std = (torch.tensor(v)[:, None, None] for v in (segmentation_data.MEAN, segmentation_data.STD))
        torch.testing.assert_close(x * std + mean, torch.from_numpy(raw * GREY / 255).float().expand(3, -1, -1))


def test_pets_have_three_classes(animals):
    data = segmentation_data.pets(animals, "trainval", base_size=30)
    assert (len(data), data.classes) == (4, 3)
    x, y = data.item(3)
    assert x.shape == (3, 30, 31) and y.shape == (30, 31)  # of 63x67
    assert y.unique().tolist() == [0, 1, 2]


def test_training_pictures_are_augmented_together_with_their_labels(street):
    data = segmentation_data.cityscapes(street, "train", classes=21, base_size=52)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    seen, padded = [], 0
    for seed in range(40):
        x, y = data.item(0, torch.Generator().manual_seed(seed))
        again = data.item(0, torch.Generator().manual_seed(seed))
        assert torch.equal(x, again[0]) and torch.equal(y, again[1])
        assert x.shape == (3, 48, 48) and y.shape == (48, 48)
        grey = (x[0] * segmentation_data.STD[0] + segmentation_data.MEAN[0]) * 255
        assert grey[y == IGNORED].abs().max() < 1e-3 if (y == IGNORED).any() else True
        padded += bool((y == IGNORED).any())
        # Far from the edges between rectangles a picture still says what its labels are.
        values = torch.tensor([1, 7, 11, 21, 26, 33])
        painted = torch.from_numpy(segmentation_data.cityscapes_classes(21)[values]).long()
        nearest = painted[(grey[..., None] - values * GREY).abs().argmin(-1)]
        assert (nearest == y)[y != IGNORED].float().mean() > 0.85
        seen.append(y)
    assert 10 < padded < 40  # the shorter side was below 48 in half of the draws or so
    assert len({tuple(y.flatten().tolist()) for y in seen}) > 35
    assert torch.equal(torch.get_rng_state(), before)  # nothing hangs on what was drawn elsewhere


def test_a_training_picture_is_flipped_and_a_test_picture_is_not(tmp_path):
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None], 64, 0)
    files = [(tmp_path / "x.png", tmp_path / "y.png")]
    for file in files[0]:
        write(file, ramp)
    data = segmentation_data.Pictures(files, np.arange(256, dtype=np.uint8), 64, 64, iou.scores_all)
    slopes = []
    for n in range(40):
        y = data.item(0, torch.Generator().manual_seed(n))[1][0]
        y = y[y != IGNORED]
        slopes.append(bool(y[-1] > y[0]))
    assert 8 < sum(slopes) < 32
    assert torch.equal(data.item(0)[1], torch.from_numpy(ramp).long())


def test_training_pictures_are_enlarged_by_chance_and_cut_at_several_places():
    """The label of a pixel is its column, so that those of a row tell how many columns were cut out, and where."""
    ramp = Image.fromarray(np.repeat(np.arange(200, dtype=np.uint8)[None], 200, 0))
    fewest, first = 200, set()
    for n in range(60):
        generator = torch.Generator().manual_seed(n)
        columns = segmentation_data.prepare(ramp.convert("RGB"), ramp, 52, generator)[1][0]
        columns = columns[columns != IGNORED]
        first.add(int(min(columns[0], columns[-1])))  # it may be flipped
        fewest = min(fewest, int(columns.max() - columns.min()))
    assert fewest < 200 / 1.5
    assert len(first) > 15


def test_arrays_are_flipped_by_chance():
    data = colours(1, 0)
    seen = {tuple(data.item(0, torch.Generator().manual_seed(n))[1].flatten().tolist()) for n in range(20)}
    assert len(seen) == 2


@pytest.mark.parametrize(("base", "crop"), [(520, 480), (260, 240), (64, 59), (2, 1)])
def test_crop_size_has_the_published_proportion(base, crop):
    assert segmentation_data.crop_size(base) == crop == int(480 * base / 520)


# Training --------------------------------------------------------------------------------------------------


def test_loss_of_adds_half_the_auxiliary_loss_over_pixels_that_count():
    generator = torch.Generator().manual_seed(0)
    out, aux = torch.randn(2, 2, 4, 5, 5, generator=generator)
    labels = torch.randint(4, (2, 5, 5), generator=generator)
    labels[0, :2] = IGNORED
    counted = labels != IGNORED

    def by_hand(scores):
        logs = scores.movedim(1, -1)[counted].log_softmax(1)
        return -logs[torch.arange(len(logs)), labels[counted]].mean()

    torch.testing.assert_close(segmentation.loss_of(out, labels), by_hand(out))
    torch.testing.assert_close(segmentation.loss_of({"out": out}, labels), by_hand(out))
    both = segmentation.loss_of({"out": out, "aux": aux}, labels)
    torch.testing.assert_close(both, by_hand(out) + 0.5 * by_hand(aux))
    assert segmentation.loss_of(out, torch.full_like(labels, IGNORED)) == 0


class TwoHeads(nn.Module):
    """A network with an auxiliary head, as torchvision's have it."""

    def __init__(self, classes):
        super().__init__()
        self.features = nn.Conv2d(3, 6, 3, padding=1)
        self.out, self.aux = nn.Conv2d(6, classes, 1), nn.Conv2d(6, classes, 1)

    def forward(self, x):
        features = self.features(x).relu()
        return {"out": self.out(features), "aux": self.aux(features)}


def colours(count, seed):
    """Rectangles of colour in noise; the class of a pixel is its colour. A tenth of the pixels is ignored."""
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(np.stack([label_map(rng, [0, 1, 2], 16, 16) for _ in range(count)])).long()
    images = nn.functional.one_hot(labels).permute(0, 3, 1, 2).float()
    images += 0.3 * torch.from_numpy(rng.normal(size=images.shape)).float()
    labels[torch.from_numpy(rng.random(labels.shape)) < 0.1] = IGNORED
    return Arrays(images, labels, 3)


def small(method):
    torch.manual_seed(0)
    layers = []
    for inputs in (3, 12):
        layers += [nn.Conv2d(inputs, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Conv2d(12, 3, 1))
    return ndlib.convert(net)[0] if method == "nd" else net


@pytest.mark.parametrize("method", ["bn", "nd"])
def test_fit_segmentation_learns_and_repeats_with_the_same_seed(method):
    train, test = colours(24, 0), colours(8, 1)
    settings = {"epochs": 4, "lr": 0.1, "batch_size": 4, "test_batch_size": 8}
    model, reported = small(method), []
    curve = segmentation.fit_segmentation(model, train, test, seed=0, report=reported.append, **settings)
    assert [e["epoch"] for e in curve] == [1, 2, 3, 4] and reported == curve
    assert curve[-1]["miou"] > 90 > 40 > 100 * mean_iou(segmentation.evaluate(small(method), test, batch_size=8))
    assert curve[-1]["loss"] < curve[0]["loss"]
    last = segmentation.evaluate(model, test)  # one at a time
    assert curve[-1]["miou"] == pytest.approx(100 * mean_iou(last))
    assert last.sum() == (test.labels != IGNORED).sum()

    def numbers(curve):
        return [(e["loss"], e["miou"]) for e in curve]

    again = segmentation.fit_segmentation(small(method), train, test, seed=0, workers=2, **settings)
    other = segmentation.fit_segmentation(small(method), train, test, seed=1, **settings)
    assert numbers(again) == numbers(curve) != numbers(other)


def test_fit_segmentation_trains_the_auxiliary_head():
    torch.manual_seed(0)
    model = TwoHeads(3)
    before = model.aux.weight.detach().clone()
    segmentation.fit_segmentation(model, colours(8, 0), colours(4, 1), epochs=1, seed=0, batch_size=4, weight_decay=0)
    assert (model.aux.weight - before).norm() > 1e-3


def test_segmentation_learning_rate_falls_by_the_power_of_nine_tenths():
    rates = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
    )
    try:
        segmentation.fit_segmentation(
            small("bn"), colours(11, 0), colours(2, 1), epochs=2, seed=0, lr=0.2, batch_size=2
        )
    finally:
        handle.remove()
    assert rates == [(pytest.approx(0.2 * (1 - step / 10) ** 0.9), 0.9) for step in range(10)]  # the 11th is left out


def test_segmentation_weight_decay_reaches_the_optimiser():
    seen = set()
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: seen.update(group["weight_decay"] for group in optimizer.param_groups)
    )
    settings = {"epochs": 1, "seed": 0, "batch_size": 4, "weight_decay": 0.3}
    try:
        segmentation.fit_segmentation(small("bn"), colours(8, 0), colours(4, 1), **settings)
    finally:
        handle.remove()
    assert seen == {0.3}


@few_rows
@pytest.mark.parametrize(("dataset", "method"), [("cityscapes", "nd"), ("pets", "bn")])
def test_segment_command_trains_deeplabv3(request, monkeypatch, capsys, dataset, method):
    folder = request.getfixturevalue({"cityscapes": "street", "pets": "animals"}[dataset])
    monkeypatch.chdir(folder)
    command = f"segment --data . --dataset {dataset} --method {method} --classes 21 --base-size 36 --epochs 1"
    command += " --batch-size 4 --lr 0.01 --seed 3 --out runs/all.jsonl"
    assert __main__.main(command.split()) == 0, capsys.readouterr().err
    (line,) = Path("runs/all.jsonl").read_text().splitlines()
    record = json.loads(line)
    names = ["miou_19", "miou_21"] if dataset == "cityscapes" else ["miou"]
    (entry,) = record["curve"]
    assert [name for name in entry if name.startswith("miou")] == names
    assert all(0 <= entry[name] <= 100 for name in names)
    settings = {"dataset": dataset, "method": method, "base_size": 36, "batch_size": 4, "lr": 0.01, "seed": 3}
    assert record.items() >= settings.items()
    assert record["classes"] == (21 if dataset == "cityscapes" else 3)
    assert record["train_pictures"] == (6 if dataset == "cityscapes" else 4) and record["test_pictures"] == 2
    assert record["command"] == f"python -m ndlib {command}"
    assert f"epoch 1: loss {entry['loss']:.3f}, {names[0]} {entry[names[0]]:.2f} %" in capsys.readouterr().out


# Mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--data nowhere", "there is no folder nowhere; unpack leftImg8bit_trainvaltest.zip and gtFine_train"),
        ("--dataset pets", "there is no oxford-iiit-pet/images; download the set (800 MB) with: python -c"),
        ("--batch-size 7", "batch_size must lie between 1 and the 6 training pictures, got 7"),
        ("--batch-size 1", "batch_size must be at least 2"),
        ("--epochs 0", "epochs must be at least 1, got 0"),
        ("--base-size 30", "deeplabv3 needs pictures of at least 32 pixels a side, got size=27"),
    ],
)
def test_segment_command_answers_a_mistake_with_one_line(street, monkeypatch, capsys, change, message):
    monkeypatch.chdir(street)
    command = "segment --data . --dataset cityscapes --method bn --base-size 40 --epochs 1 --batch-size 2"
    assert __main__.main([*command.split(), *change.split()]) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (street / "data").exists()


def test_cityscapes_refuses_damaged_label_maps_and_missing_files(street):
    with pytest.raises(ValueError, match="19 classes, or 21 as the authors count, got 20"):
        segmentation_data.cityscapes(street, "train", classes=20)
    data = segmentation_data.cityscapes(street, "val", base_size=48)
    for pixels, message in (
        (np.full((48, 96), 40, np.uint8), "holds the value 40, which means nothing; is it the right file"),
        (np.zeros((48, 96, 3), np.uint8), r"labelIds\.png looks like colours \(RGB\)"),
        (np.zeros((48, 96, 4), np.uint8), r"labelIds\.png looks like colours \(RGBA\)"),
        (np.full((48, 96), 26001, np.uint16), "does not hold one byte for each pixel of"),
        (np.zeros((48, 95), np.uint8), "does not hold one byte for each pixel of"),
    ):
        write(data.files[0][1], pixels)
        with pytest.raises(DatasetError, match=message):
            data.item(0)
    data.files[0][1].unlink()
    with pytest.raises(DatasetError, match=f"1 files are missing, the first is .*{data.files[0][1].name}"):
        segmentation_data.cityscapes(street, "val")
    for file in (street / "leftImg8bit" / "val").rglob("*.png"):
        file.unlink()
    with pytest.raises(DatasetError, match="there is no picture in them; were the archives unpacked"):
        segmentation_data.cityscapes(street, "val")


@pytest.mark.parametrize(
    ("values", "train_ids"),
    [
        ([0, 2, 18, 255], True),
        ([*range(19), 255], True),
        ([0, 2, 18], False),  # labelIds may be these
        ([0, 7, 26, 255], False),  # a car with its licence plate
        ([*range(34)], False),
    ],
)
def test_cityscapes_refuses_a_file_of_train_ids_and_no_other(street, values, train_ids):
    data = segmentation_data.cityscapes(street, "val", base_size=48)
    write(data.files[0][1], np.resize(np.array(values, np.uint8), (48, 96)))
    if train_ids:
        with pytest.raises(DatasetError, match=r"frankfurt_000000_000019_gtFine_labelIds\.png looks like trainIds"):
            data.item(0)
    else:
        with Image.open(data.files[0][1]) as stored:
            assert data.item(0)[1].tolist() == data.table[np.asarray(stored)].tolist()


def test_cityscapes_passes_over_files_that_are_no_pictures(street):
    before = segmentation_data.cityscapes(street, "train").files
    for root in (street / "leftImg8bit" / "train", street / "gtFine" / "train"):
        for place in (root, root / "aachen", root / ".hidden"):
            place.mkdir(exist_ok=True)
            for name in (".DS_Store", "Thumbs.db", "desktop.ini", "Icon\r", "._aachen_000000_000019_leftImg8bit.png"):
                (place / name).write_bytes(b"no picture")
        write(root / ".hidden" / "a_leftImg8bit.png", np.zeros((48, 96, 3), np.uint8))
    assert segmentation_data.cityscapes(street, "train").files == before
    write(street / "leftImg8bit" / "train" / "aachen" / "own.png", np.zeros((48, 96, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"1 files are missing, the first is .*own_gtFine_labelIds\.png"):
        segmentation_data.cityscapes(street, "train")


def test_pets_take_the_folder_inside_and_pass_over_hidden_files(animals):
    before = segmentation_data.pets(animals, "test").files
    inside = animals / "oxford-iiit-pet"
    for place in (inside, inside / "images", inside / "annotations", inside / "annotations" / "trimaps"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._Abyssinian_test_0.png", "._test.txt"):
            (place / name).write_bytes(b"no picture")
    listed = inside / "annotations" / "test.txt"
    listed.write_text(listed.read_text() + "\n")
    assert segmentation_data.pets(animals, "test").files == segmentation_data.pets(inside, "test").files == before
    listed.unlink()
    for folder in (animals, inside):
        with pytest.raises(DatasetError, match=r"no .*/test\.txt; unpack annotations\.tar\.gz of .*/oxford-iiit-pet$"):
            segmentation_data.pets(folder, "test")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 2], "looks like classes counted from 0"),
        ([0, 1], "looks like classes counted from 0"),
        ([0, 255], "looks like a mask of 0 and 255"),
        ([38, 75, 113], "holds the value 38, which means nothing"),
    ],
)
def test_pets_refuse_a_trimap_of_another_encoding(animals, values, message):
    data = segmentation_data.pets(animals, "test", base_size=30)
    with Image.open(data.files[0][0]) as picture:
        size = picture.size[::-1]
    write(data.files[0][1], np.resize(np.array(values, np.uint8), size))
    with pytest.raises(DatasetError, match=rf"Abyssinian_test_0\.png {message}"):
        data.item(0)
    write(data.files[0][1], np.zeros((*size, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"Abyssinian_test_0\.png looks like colours"):
        data.item(0)


def test_fit_segmentation_raises_when_the_loss_diverges():
    with pytest.raises(FloatingPointError, match="not finite in epoch 1"):
        segmentation.fit_segmentation(
            small("bn"), colours(8, 0), colours(4, 1), epochs=1, seed=0, lr=1e30, batch_size=4
        )


def test_fit_segmentation_refuses_a_set_without_test_pictures():
    nothing = Arrays(torch.zeros(0, 3, 4, 4), torch.zeros(0, 4, 4).long(), 3)
    with pytest.raises(ValueError, match="no picture to test on"):
        segmentation.fit_segmentation(small("bn"), colours(8, 0), nothing, epochs=1, seed=0)


def test_confusion_matrix_refuses_values_that_are_no_class():
    with pytest.raises(ValueError, match="the labels hold a class outside 0 to 2"):
        confusion_matrix(torch.tensor([0]), torch.tensor([3]), 3)
    with pytest.raises(ValueError, match="the prediction hold a class outside 0 to 2"):
        confusion_matrix(torch.tensor([-1]), torch.tensor([0]), 3)
    with pytest.raises(ValueError, match=r"a prediction of shape \(1,\) for labels of \(2,\)"):
        confusion_matrix(torch.tensor([0]), torch.tensor([0, 0]), 3)

"""Data sets: where they come from, that they arrive whole or not at all, and that subsets are the same for all."""

import hashlib
import io
import os
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ndlib import files
from ndlib.experiments import datasets
from ndlib.pictures import photographs

REAL = os.environ.get("NDLIB_DATA")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NDLIB_DATA", str(tmp_path))
    return tmp_path


def arrays(n=20, grey=False, seed=0):
    rng = np.random.default_rng(seed)
    shape = (28, 28) if grey else (32, 32, 3)
    return {
        "train_images": rng.integers(0, 256, (n, *shape), dtype=np.uint8),
        "train_labels": np.arange(n) % 3,
        "test_images": rng.integers(0, 256, (5, *shape), dtype=np.uint8),
        "test_labels": np.arange(5) % 3,
        "classes": np.array(["a", "b", "c"]),
    }


def shuffled(stored, seed):
    order = np.random.default_rng(seed).permutation(len(stored["train_labels"]))
    return stored | {key: stored[key][order] for key in ("train_images", "train_labels")}


# The cache. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grey", [False, True])
def test_load_returns_a_stored_set_as_tensors(folder, grey):
    stored = arrays(grey=grey)
    datasets.write_npz(folder / "cifar10.npz", stored)
    loaded = datasets.load("cifar10")
    assert loaded.train_images.dtype == torch.uint8
    assert loaded.train_images.shape == ((20, 1, 28, 28) if grey else (20, 3, 32, 32))
    assert loaded.classes == ("a", "b", "c")
    # Every image is there once, the right way up, with its own label.
    pairs = zip(loaded.train_images, loaded.train_labels, strict=True)
    seen = {image.numpy().tobytes(): int(label) for image, label in pairs}
    for image, label in zip(stored["train_images"], stored["train_labels"], strict=True):
        chw = image[None] if grey else image.transpose(2, 0, 1)
        assert seen[chw.tobytes()] == label


def test_load_orders_images_however_the_set_arrived(folder):
    stored = arrays()
    subsets = []
    for seed in (1, 2):
        datasets.write_npz(folder / "cifar10.npz", shuffled(stored, seed))
        subsets.append(datasets.load("cifar10").subset(7, 3))
    assert torch.equal(subsets[0].train_images, subsets[1].train_images)
    assert torch.equal(subsets[0].train_labels, subsets[1].train_labels)
    assert subsets[0].sha256() == subsets[1].sha256()


def test_training_images_are_in_the_order_of_their_checksums(folder):
    datasets.write_npz(folder / "cifar10.npz", arrays())
    images = datasets.load("cifar10").train_images.permute(0, 2, 3, 1)
    checksums = [hashlib.sha256(image.numpy().tobytes()).digest() for image in images]
    assert checksums == sorted(checksums)


def test_dataset_sha256_covers_pixels_labels_and_split(folder):
    datasets.write_npz(folder / "cifar10.npz", arrays())
    loaded = datasets.load("cifar10")
    checksums = {loaded.sha256(), loaded.subset(19).sha256(), loaded.subset(None, 4).sha256()}
    loaded.train_labels[3] += 1
    checksums.add(loaded.sha256())
    loaded.test_images[0, 0, 0, 0] ^= 1
    checksums.add(loaded.sha256())
    loaded.test_labels[0] += 1
    checksums.add(loaded.sha256())
    assert len(checksums) == 6


def test_subset_refuses_more_images_than_there_are(folder):
    datasets.write_npz(folder / "cifar10.npz", arrays())
    with pytest.raises(ValueError, match="train_images must lie between 1 and 20 for cifar10, got 21"):
        datasets.load("cifar10").subset(21)
    with pytest.raises(ValueError, match="test_images must lie between 1 and 5 for cifar10, got 0"):
        datasets.load("cifar10").subset(None, 0)


class Pickle:
    """Code that a reader of pickles would run: it leaves a folder behind."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "this code ran"),)


def damaged(kind, folder):
    file = folder / "cifar10.npz"
    datasets.write_npz(file, arrays())
    whole = bytearray(file.read_bytes())
    if kind == "cut short":
        file.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "one bit flipped":
        whole[len(whole) // 3] ^= 4
        file.write_bytes(whole)
    elif kind == "pickled":
        np.savez(file, **(arrays() | {"classes": np.array([Pickle(folder)] * 3, dtype=object)}))
    elif kind == "float pixels":
        np.savez(file, **(arrays() | {"test_images": np.zeros((5, 32, 32, 3))}))
    elif kind == "labels missing":
        np.savez(file, **{k: v for k, v in arrays().items() if k != "test_labels"})
    elif kind == "label out of range":
        np.savez(file, **(arrays() | {"test_labels": np.array([0, 1, 2, 3, 0])}))
    elif kind == "negative label":
        np.savez(file, **(arrays() | {"test_labels": np.array([0, 1, 2, 0, -1])}))
    elif kind == "fewer labels than images":
        np.savez(file, **(arrays() | {"test_labels": np.array([0, 1, 2])}))
    elif kind == "four channels":
        np.savez(file, **(arrays() | {"test_images": np.zeros((5, 32, 32, 4), dtype=np.uint8)}))
    return file


@pytest.mark.parametrize(
    "kind",
    [
        *("cut short", "empty", "one bit flipped", "pickled", "float pixels", "labels missing", "label out of range"),
        *("negative label", "fewer labels than images", "four channels"),
    ],
)
def test_load_refuses_a_damaged_file_by_name(folder, kind):
    file = damaged(kind, folder)
    with pytest.raises(datasets.DatasetError, match=r"cifar10\.npz is damaged or no data set file .*delete it"):
        datasets.load("cifar10")
    assert list(folder.iterdir()) == [file]


def test_write_npz_leaves_nothing_behind_when_interrupted(folder, monkeypatch):
    def interrupted(stream, **_):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.write_npz(folder / "cifar10.npz", arrays())
    assert list(folder.iterdir()) == []


def test_write_npz_lets_others_read_the_file(folder):
    datasets.write_npz(folder / "a.npz", arrays())
    assert (folder / "a.npz").stat().st_mode & 0o777 == 0o644


def test_unknown_data_set_or_photograph_lists_the_known():
    with pytest.raises(ValueError, match="unknown data set 'cifar'; there are photo-patches, cifar10, cifar100, mnist"):
        datasets.load("cifar")
    with pytest.raises(ValueError, match="unknown photograph 'dog'; there are astronaut, cat"):
        photographs.photograph("dog")


# Downloads, with the network replaced. ---------------------------------------------------------------------


def cifar_archive(path, inside, members, names):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {**members, names[0]: names[1].encode()}.items():
            info = tarfile.TarInfo(f"{inside}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def records(n, label_bytes, start):
    rng = np.random.default_rng(start)
    labels = (np.arange(n)[:, None] + start + np.arange(label_bytes)) % 10
    return np.concatenate([labels.astype(np.uint8), rng.integers(0, 256, (n, 3072), dtype=np.uint8)], 1)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_load_reads_and_keeps_binary_cifar_archives(folder, monkeypatch, name):
    if name == "cifar10":
        parts = {f"data_batch_{i}.bin": records(4, 1, i) for i in range(1, 6)} | {"test_batch.bin": records(3, 1, 9)}
        inside, names, label = "cifar-10-batches-bin", ("batches.meta.txt", "\n".join("abcdefghij") + "\n\n"), 0
    else:
        parts = {"train.bin": records(20, 2, 1), "test.bin": records(3, 2, 9)}
        inside, names, label = "cifar-100-binary", ("fine_label_names.txt", "\n".join("abcdefghij") + "\n"), 1

    def download(url, root, md5):
        assert url.startswith("https://www.cs.toronto.edu/~kriz/")
        assert len(md5) == 32
        members = {k: v.tobytes() for k, v in parts.items()}
        cifar_archive(Path(root) / url.rsplit("/", 1)[1], inside, members, names)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    loaded = datasets.load(name)
    assert [p.name for p in folder.iterdir()] == [f"{name}.npz"]  # the archive is gone
    assert loaded.classes == tuple("abcdefghij")
    assert len(loaded.train_images) == 20
    everything = np.concatenate([p for k, p in parts.items() if "test" not in k])
    wanted = {row[label + 1 :].tobytes(): row[label] for row in everything}
    for image, number in zip(loaded.train_images, loaded.train_labels, strict=True):
        assert wanted[image.numpy().tobytes()] == number  # planes of red, green and blue, as stored

    monkeypatch.setattr("torchvision.datasets.utils.download_url", None)
    assert datasets.load(name).sha256() == loaded.sha256()


@pytest.mark.parametrize("whole", [True, False])
def test_load_uses_a_cifar_archive_that_lies_there_if_its_checksum_is_right(folder, monkeypatch, whole):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    parts = {f"data_batch_{i}.bin": records(4, 1, i) for i in range(1, 6)} | {"test_batch.bin": records(3, 1, 9)}
    archive = folder / "cifar-10-binary.tar.gz"
    members = {k: v.tobytes() for k, v in parts.items()}
    cifar_archive(archive, "cifar-10-batches-bin", members, ("batches.meta.txt", "\n".join("abcdefghij")))
    stored = archive.read_bytes()
    read, md5 = datasets._download_cifar, hashlib.md5(stored).hexdigest()
    monkeypatch.setattr(datasets, "_download_cifar", lambda place, name, _, *rest: read(place, name, md5, *rest))
    if not whole:
        stored = stored[:-1] + bytes([stored[-1] ^ 1])
        archive.write_bytes(stored)
        with pytest.raises(
            datasets.DatasetError, match=r"no route.*cifar-10-binary\.tar\.gz did not serve: is it whole"
        ):
            datasets.load("cifar10")
        assert [p.name for p in folder.iterdir()] == [archive.name]
    else:
        loaded = datasets.load("cifar10")
        assert len(loaded.train_images) == 20 and len(loaded.test_images) == 3
        assert sorted(p.name for p in folder.iterdir()) == [archive.name, "cifar10.npz"]
    assert archive.read_bytes() == stored


def test_load_imagenette_cuts_squares(folder, monkeypatch):
    """Wide, high and grey JPEG files: the middle square of each, with its label; train and val stay apart."""
    names = {"n01440764": "tench", "n03888257": "parachute"}

    def download(url, root, md5):
        for part, number in (("train", 3), ("val", 2)):
            for label, wnid in enumerate(names):
                place = Path(root) / "imagenette2-160" / part / wnid
                place.mkdir(parents=True)
                for n in range(number):
                    picture = np.full((160, 240, 3), 60 * label + 20 * n + (100 if part == "val" else 0), np.uint8)
                    picture[:, :30] = picture[:, -30:] = 255  # outside the middle square
                    picture = picture.swapaxes(0, 1) if n else picture
                    image = Image.fromarray(picture)
                    (image.convert("L") if n == 1 else image).save(place / f"{n}.jpeg", quality=100)

    monkeypatch.setattr("torchvision.datasets.imagenette.download_and_extract_archive", download)
    loaded = datasets.load("imagenette96")
    assert loaded.classes == ("tench", "parachute")
    assert loaded.train_images.shape == (6, 3, 96, 96) and loaded.test_images.shape == (4, 3, 96, 96)
    for images, labels, start, number in (
        (loaded.train_images, loaded.train_labels, 0, 3),
        (loaded.test_images, loaded.test_labels, 100, 2),
    ):
        means = images.double().mean((1, 2, 3))
        assert images.double().std((1, 2, 3)).max() < 1
        for label in (0, 1):
            wanted = torch.tensor([start + 60.0 * label + 20 * n for n in range(number)]).double()
            torch.testing.assert_close(means[labels == label].sort().values, wanted, atol=1, rtol=0)
    assert [p.name for p in folder.iterdir()] == ["imagenette96.npz"]


def test_load_imagenette48_takes_the_mean_of_four_pixels(folder, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", None)  # the stored pictures serve
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(2, 96, 96, 3), dtype=np.uint8)
    images[0, :2, :2] = np.array([1, 2, 2, 1], np.uint8).reshape(2, 2, 1)  # 1.5: rounded up
    images[1, :2, :2] = 255
    arrays = {"classes": np.array(["a", "b"])}
    for split in ("train", "test"):
        arrays |= {f"{split}_images": images, f"{split}_labels": np.arange(2)}
    datasets.write_npz(folder / "imagenette96.npz", arrays)
    loaded = datasets.load("imagenette48")
    assert loaded.train_images.shape == (2, 3, 48, 48)
    order = loaded.train_labels
    fours = torch.from_numpy(images).permute(0, 3, 1, 2).double()
    wanted = torch.nn.functional.avg_pool2d(fours, 2)[order]
    assert (loaded.train_images.double() - wanted).abs().max() <= 0.5
    assert loaded.train_images[order.argsort()][0, 0, 0, 0] == 2
    assert loaded.test_images[order.argsort()][1, 0, 0, 0] == 255
    assert [p.name for p in folder.iterdir()] == ["imagenette96.npz"]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist", "imagenette96"])
def test_load_without_a_network_says_what_to_do(folder, monkeypatch, name):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    message = rf"(?s){name} is not in .*no route.*Connect.*{name}.npz.*NDLIB_DATA.*photo-patches"
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.load(name)
    assert list(folder.iterdir()) == []


def test_load_distrusts_a_download_that_broke_off(folder, monkeypatch):
    def breaks_off(url, root, md5):
        (Path(root) / "cifar-10-binary.tar.gz").write_bytes(b"half an archive")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", breaks_off)
    with pytest.raises(datasets.DatasetError, match="could not be downloaded"):
        datasets.load("cifar10")
    assert list(folder.iterdir()) == []


# What needs no download. ------------------------------------------------------------------------------------


def test_photo_patches_are_always_there_and_always_the_same(folder):
    patches = datasets.load("photo-patches")
    assert patches.train_images.shape == (5000, 3, 32, 32)
    assert patches.test_images.shape == (1000, 3, 32, 32)
    assert patches.train_labels.bincount().tolist() == [500] * 10
    assert patches.test_labels.bincount().tolist() == [100] * 10
    assert patches.classes == photographs.PHOTOGRAPHS
    assert list(folder.iterdir()) == []
    assert patches.sha256() == datasets.photo_patches.__wrapped__().sha256()
    assert patches.train_images.float().std((1, 2, 3)).min() > 5


def test_no_pixel_is_in_a_training_and_in_a_test_patch(monkeypatch):
    """On a picture that spells each pixel's position in its colours."""
    y, x = np.mgrid[:500, :400]
    spelt = np.stack([y % 250, x % 200, (y // 250) * 2 + x // 200], 2).astype(np.uint8)
    monkeypatch.setattr(datasets, "pixels", lambda name: spelt)
    patches = datasets.photo_patches.__wrapped__(200, 60)

    def positions(images):
        r, g, b = images.permute(1, 0, 2, 3).flatten(1).long()
        return set(zip((r + 250 * (b // 2)).tolist(), (g + 200 * (b % 2)).tolist(), strict=True))

    train, test = positions(patches.train_images), positions(patches.test_images)
    assert len(train) > 100_000 > len(test) > 10_000
    assert not train & test


@pytest.mark.parametrize("name", photographs.PHOTOGRAPHS)
def test_photographs(name):
    picture = photographs.photograph(name)
    assert picture.dtype == torch.float32
    assert picture.shape[0] == 3
    assert 0 <= picture.min() < 0.3 < picture.max() <= 1
    grey = photographs.luminance(picture)
    assert grey.shape == picture.shape[1:]


def test_luminance_weights():
    torch.testing.assert_close(photographs.luminance(torch.ones(3, 2, 2)), torch.ones(2, 2))
    green = torch.zeros(3, 1, 1)
    green[1] = 1
    assert photographs.luminance(green).item() == pytest.approx(0.7152)


def test_files_path_finds_what_the_project_carries():
    assert files.path("published/table1_original_ye2020.csv").read_text().startswith("architecture,")
    with pytest.raises(FileNotFoundError, match=r"no file 'nothing.csv'; it has .*published/table2_imagenet.csv"):
        files.path("nothing.csv")


# The real sets, where they are. ------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL or not (Path(REAL) / "cifar10.npz").exists(), reason="$NDLIB_DATA has no cifar10.npz")
def test_real_cifar10_is_whole():
    cifar = datasets.load("cifar10")
    assert cifar.train_images.shape == (50000, 3, 32, 32)
    assert cifar.train_labels.bincount().tolist() == [5000] * 10
    mean = cifar.train_images.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=1e-4, rtol=0)
    first, second = (cifar.train_images[i].permute(1, 2, 0).numpy().tobytes() for i in range(2))
    assert hashlib.sha256(first).digest() < hashlib.sha256(second).digest() < b"\1"

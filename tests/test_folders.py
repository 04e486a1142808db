"""Reading pictures, and the statistics of folders of them."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from sample_pictures import assert_equal_statistics, sum_of

from ndlib import files
from ndlib.pictures import folders, statistics_files
from ndlib.pictures.image_statistics import in_space, picture_statistics


def pixels(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def colour_picture(mode):
    colour = Image.fromarray(pixels(20, 24, 3))
    return colour.quantize(64) if mode == "P" else colour.convert(mode)


@pytest.mark.parametrize(
    ("mode", "file"), [("RGB", "a.png"), ("RGBA", "a.png"), ("P", "a.gif"), ("P", "a.png"), ("CMYK", "a.tif")]
)
def test_read_picture_makes_rgb_of_every_mode(tmp_path, mode, file):
    stored = colour_picture(mode)
    stored.save(tmp_path / file)
    found = folders.read_picture(tmp_path / file)
    assert found.dtype == torch.float64 and found.shape == (3, 20, 24)
    wanted = np.asarray(stored.convert("RGB")).transpose(2, 0, 1) / 255
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_read_picture_drops_transparency(tmp_path):
    colours, alpha = pixels(20, 24, 3), pixels(20, 24, 1, seed=1)
    Image.fromarray(np.concatenate([colours, alpha], 2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(folders.read_picture(tmp_path / "a.png").numpy(), colours.transpose(2, 0, 1) / 255)
    palette = Image.fromarray(colours).quantize(16)
    palette.save(tmp_path / "p.png", transparency=bytes([0, 100, 200]))
    np.testing.assert_array_equal(
        folders.read_picture(tmp_path / "p.png").numpy(),
        np.asarray(palette.convert("RGB")).transpose(2, 0, 1) / 255,
    )


@pytest.mark.parametrize(("dtype", "file"), [(np.uint8, "a.png"), (np.uint16, "a.png"), (np.uint16, "a.tif")])
def test_read_picture_makes_three_equal_colours_of_grey(tmp_path, dtype, file):
    grey = pixels(20, 24, dtype=dtype)
    Image.fromarray(grey).save(tmp_path / file)
    found = folders.read_picture(tmp_path / file)
    assert found.shape == (3, 20, 24)
    np.testing.assert_array_equal(found.numpy(), np.stack([grey / np.iinfo(dtype).max] * 3))


def test_read_picture_refuses_pixels_of_unknown_scale(tmp_path):
    Image.fromarray(pixels(20, 20).astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="floating-point pixels"):
        folders.read_picture(tmp_path / "a.tif")
    Image.fromarray(np.full((20, 20), 70000, np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match="more than 16 bits"):
        folders.read_picture(tmp_path / "b.tif")


def test_read_picture_rescales_as_torchvision_and_never_enlarges(tmp_path):
    from torchvision.transforms.functional import resize

    stored = Image.fromarray(pixels(60, 90, 3))
    stored.save(tmp_path / "a.png")
    found = folders.read_picture(tmp_path / "a.png", 20)
    np.testing.assert_array_equal(found.numpy(), np.asarray(resize(stored, 20)).transpose(2, 0, 1) / 255)
    assert found.shape == (3, 20, 30)
    assert folders.read_picture(tmp_path / "a.png", 61).shape == (3, 60, 90)
    Image.fromarray(pixels(60, 90, dtype=np.uint16)).save(tmp_path / "b.png")
    assert folders.read_picture(tmp_path / "b.png", 20).shape == (3, 20, 30)


@pytest.fixture
def folder(tmp_path):
    """Nine pictures, of which one is damaged and one too small, in two folders, and a file that is no picture."""
    root = tmp_path / "pictures"
    (root / "b").mkdir(parents=True)
    for n in range(7):
        name = f"{'b/' if n % 2 else ''}{n}.png"
        Image.fromarray(pixels(20 + n, 31 - n, 3, seed=n)).save(root / name)
    (root / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    Image.fromarray(pixels(14, 40, 3)).save(root / "small.png")
    (root / "notes.txt").write_text("not a picture")
    return root


NAMES = ["0.png", "2.png", "4.png", "6.png", "b/1.png", "b/3.png", "b/5.png", "b/broken.jpg", "small.png"]


def test_collect_sums_the_pictures_of_a_folder(folder, tmp_path):
    found = folders.collect(folder, tmp_path / "out.npz", sizes=[16])
    assert folders.pictures_in(folder) == NAMES
    assert_equal_statistics(found.total, sum_of(folder, NAMES[:7]))
    assert_equal_statistics(found.rescaled[16], sum_of(folder, NAMES[:7], 16))
    assert found.groups.images.tolist() == [1, 1, 1, 1, 1, 1, 1, 0]  # by turns: the eighth file is the broken one
    assert_equal_statistics(found.groups[5], in_space(sum_of(folder, [NAMES[5]]), "luminance"))
    torch.testing.assert_close(found.total.own, sum_of(folder, NAMES[:7]).own, atol=0, rtol=0)
    assert found.provenance["pictures"] == 7
    broken, small = found.provenance["skipped"]
    assert broken.startswith("b/broken.jpg: cannot identify image")
    assert "small.png: " in small and "at least 15 pixels" in small
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npz", "pictures"]  # nothing is left over


def test_pictures_in_knows_endings_in_small_and_capital_letters(tmp_path):
    (tmp_path / "A.PNG").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert folders.pictures_in(tmp_path) == ["A.PNG"]


def test_collect_keeps_prefix_sums_of_random_orders(folder, tmp_path):
    folders.collect(folder, tmp_path / "out.npz", orders=2)
    found = statistics_files.load_statistics(tmp_path / "out.npz")
    assert [p.channels for p in found.prefixes] == [3, 1]
    for order, prefix in enumerate(found.prefixes):
        names = [NAMES[i] for i in np.random.default_rng(order).permutation(9)]
        for n, count in enumerate(folders.prefix_counts(9)):
            first = [name for name in names[:count] if name in NAMES[:7]]
            assert int(prefix.images[n]) == len(first)
            if first:
                wanted = in_space(sum_of(folder, first), "luminance")
                per_pixel = float(wanted.extent[3])
                assert_equal_statistics(in_space(prefix[n], "luminance"), wanted, atol=2**-23 * per_pixel)
        assert int(prefix.images[-1]) == 7


def test_prefix_counts_are_spaced_logarithmically():
    assert folders.prefix_counts(1) == [1]
    assert folders.prefix_counts(9) == list(range(1, 10))
    counts = folders.prefix_counts(1000)
    assert len(counts) == 64 and counts[:10] == list(range(1, 11)) and counts[-1] == 1000 and 500 in counts
    assert max(b / a for a, b in pairwise(counts[9:])) < 1.15


def stored_arrays(file):
    with np.load(file, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored}


class Interruption(BaseException):
    pass


def test_collect_goes_on_after_interruptions_with_the_same_bits(folder, tmp_path, monkeypatch):
    options = {"sizes": [16], "orders": 2}
    folders.collect(folder, tmp_path / "whole.npz", **options)
    measured = []

    def interrupted(x):
        measured.append(x)
        if len(measured) in (2, 8, 13):  # two sizes a picture: within the first, fourth and sixth attempt
            raise Interruption
        return picture_statistics(x)

    monkeypatch.setattr(folders, "picture_statistics", interrupted)
    monkeypatch.setattr(folders, "SAVE_EVERY", -1.0)
    for _ in range(3):
        with pytest.raises(Interruption):
            folders.collect(folder, tmp_path / "out.npz", **options)
        assert not (tmp_path / "out.npz").exists()
    folders.collect(folder, tmp_path / "out.npz", **options)
    assert len(measured) < 2 * 14  # 2 x 7 once and the three interrupted pictures again
    ours, wanted = stored_arrays(tmp_path / "out.npz"), stored_arrays(tmp_path / "whole.npz")
    assert ours.keys() == wanted.keys()
    for key in wanted:
        np.testing.assert_array_equal(ours[key], wanted[key], err_msg=key)


def test_collect_removes_its_partial_file(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "SAVE_EVERY", -1.0)
    folders.collect(folder, tmp_path / "out.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npz", "pictures"]


def test_partial_file_keeps_the_skipped_pictures(tmp_path):
    before, after = (folders._State(["x.png", "y.png"], [], 0) for _ in range(2))
    before.add(tmp_path, "x.png")  # there is no such file
    before.write(tmp_path / "partial")
    after.restore(tmp_path / "partial")
    assert after.skipped == before.skipped != []


def test_collect_refuses_the_partial_file_of_another_run(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "SAVE_EVERY", -1.0)
    state = folders._State(NAMES, [], 0)
    state.write(tmp_path / ".out.npz.partial")
    with pytest.raises(files.DatasetError, match=r"partial \(it is of other pictures or options\): delete it"):
        folders.collect(folder, tmp_path / "out.npz", orders=1)
    (tmp_path / ".out.npz.partial").write_bytes(b"PK half a file")
    with pytest.raises(files.DatasetError, match="delete it to begin afresh"):
        folders.collect(folder, tmp_path / "out.npz")


def test_collect_refuses_folders_without_pictures_and_small_sizes(tmp_path, folder):
    with pytest.raises(ValueError, match="there are no pictures below"):
        folders.collect(tmp_path / "nowhere", tmp_path / "out.npz")
    shutil.rmtree(folder / "b")
    for n in (0, 2, 4, 6):
        (folder / f"{n}.png").unlink()
    with pytest.raises(ValueError, match=r"none of the 1 pictures could be read; the first: small\.png"):
        folders.collect(folder, tmp_path / "out.npz")
    with pytest.raises(ValueError, match="a size must be at least 15 pixels, got 8"):
        folders.collect(folder, tmp_path / "out.npz", sizes=[8])


def test_merge_of_halves_is_the_whole(folder, tmp_path):
    whole = folders.collect(folder, tmp_path / "whole.npz", sizes=[16])
    shutil.move(folder / "b", tmp_path / "other")
    halves = [
        folders.collect(place, tmp_path / f"{n}.npz", sizes=[16])
        for n, place in enumerate([folder, tmp_path / "other"])
    ]
    merged = statistics_files.merge(*halves)
    statistics_files.save_statistics(tmp_path / "merged.npz", merged)
    found = statistics_files.load_statistics(tmp_path / "merged.npz")
    assert_equal_statistics(found.total, whole.total, atol=1e-9)
    assert_equal_statistics(found.rescaled[16], whole.rescaled[16], atol=1e-9)
    assert int(found.groups.images.sum()) == 7
    assert int(found.total.images) == 7 and len(found.provenance["skipped"]) == 2
    with pytest.raises(ValueError, match=r"different sizes: \[16\] and \[\]"):
        statistics_files.merge(whole, folders.collect(folder, tmp_path / "plain.npz"))


def test_collect_checksum_covers_names_and_contents(folder, tmp_path):
    def digest():
        return folders.collect(folder, tmp_path / "out.npz").provenance["sha256"]

    first = digest()
    assert first == digest()
    (folder / "0.png").rename(folder / "00.png")
    renamed = digest()
    Image.fromarray(pixels(20, 31, 3, seed=50)).save(folder / "00.png")
    assert len({first, renamed, digest()}) == 3

"""The statistics of folders of pictures: sums, interruptions, merging, and what is skipped."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_pictures import assert_equal_statistics, sum_of

from ndlib import cli, files
from ndlib.pictures import folders, reading, statistics_files
from ndlib.pictures.exact_sums import Sums, sums_of
from ndlib.pictures.image_statistics import half_of_lags, in_space


def pixels(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


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
    assert reading.pictures_in(folder) == NAMES
    assert_equal_statistics(found.total, sum_of(folder, NAMES[:7]), atol=1e-11)
    assert_equal_statistics(found.rescaled[16], sum_of(folder, NAMES[:7], 16), atol=1e-11)
    assert found.groups.images.tolist() == [1, 1, 1, 1, 1, 1, 1, 0]  # by turns: the eighth file is the broken one
    assert_equal_statistics(found.groups[5], in_space(sum_of(folder, [NAMES[5]]), "luminance"), atol=1e-11)
    torch.testing.assert_close(found.total.own, sum_of(folder, NAMES[:7]).own, atol=3e-7, rtol=0)
    assert found.provenance["left_out"] == ["notes.txt: no picture"]
    assert found.provenance["pictures"] == 7
    broken, small = found.provenance["skipped"]
    assert broken.startswith("b/broken.jpg: cannot identify image")
    assert "small.png: " in small and "at least 15 pixels" in small
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npz", "pictures"]  # nothing is left over


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

    def interrupted(*picture):
        measured.append(picture)
        if len(measured) in (2, 8, 13):  # two sizes a picture: within the first, fourth and sixth attempt
            raise Interruption
        return sums_of(*picture)

    monkeypatch.setattr(folders, "sums_of", interrupted)
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
    before.add(tmp_path, 0)  # there is no such file
    before.write(tmp_path / "partial")
    after.restore(tmp_path / "partial")
    assert after.skipped == before.skipped != {}
    assert after.done.tolist() == [True, False]


def test_collect_refuses_the_partial_file_of_another_run(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "SAVE_EVERY", -1.0)
    state = folders._State(NAMES, [], 0)
    state.write(tmp_path / ".out.npz.partial")
    with pytest.raises(files.DatasetError, match=r"partial \(it is of other pictures or options, or .*\): delete it"):
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
    assert_equal_statistics(found.total, whole.total)
    assert_equal_statistics(found.rescaled[16], whole.rescaled[16])
    assert torch.equal(found.total.own, whole.total.own)
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


def test_any_name_any_ending_and_links_are_read(folder, tmp_path, capsys):
    """A name that is not UTF-8, a line break in a name, no ending, and links to files and folders."""
    picture = (folder / "0.png").read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.png").write_bytes(picture)
    for name in (b"caf\xe9.png", b"two\nlines", b"picture.heic"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(picture)
    (folder / "link").symlink_to(elsewhere)
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.png")).write_bytes(b"no picture")
    file = folder / "out.npz"  # the result may stand among the pictures
    for _ in range(2):
        found = folders.collect(folder, file)
        assert found.provenance["pictures"] == 7 + 4 == int(found.total.images)
    assert [name.split(":")[0] for name in found.provenance["skipped"]] == [
        "b/broken.jpg",
        "bad\\udcff.png",
        "small.png",
    ]
    assert cli.main(["statistics", str(folder), "--out", str(file)]) == 0
    said = capsys.readouterr().out
    assert "skipped bad\\udcff.png: cannot identify" in said and "left out notes.txt: no picture" in said
    assert "11 pictures, 3 skipped, 1 other files left out: " in said


def test_orientation_depth_and_transparency_are_counted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, upright = tmp_path / "turned", tmp_path / "upright"
    turned.mkdir()
    upright.mkdir()
    x = pixels(20, 31, 3)
    Image.fromarray(x).save(turned / "a.png", exif=exif)
    Image.fromarray(np.rot90(x, -1)).save(upright / "a.png")
    for place in (turned, upright):
        Image.fromarray(pixels(20, 31, dtype=np.uint16)).save(place / "b.png")
        Image.fromarray(pixels(20, 31, 4)).save(place / "c.png")
    ours, wanted = (folders.collect(place, tmp_path / f"{place.name}.npz") for place in (turned, upright))
    assert ours.provenance["notes"] == {
        "16 bits deep": 1,
        "transparency dropped": 1,
        "turned by its EXIF orientation": 1,
    }
    assert_equal_statistics(ours.total, wanted.total)
    assert torch.equal(ours.total.own, wanted.total.own)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_large_picture_needs_little_memory(tmp_path):
    """Of 12 megapixels, in a process of its own: 4 bytes a pixel in Pillow, and the strips."""
    Image.effect_noise((4000, 3000), 60).convert("RGB").save(tmp_path / "large.jpg", quality=90)
    script = """
import sys
from pathlib import Path
from ndlib.pictures import folders
import tqdm.auto
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
small, large = Path(sys.argv[1]), Path(sys.argv[2])
folders.measured(small)
before = peak()
folders.measured(large)
print(peak() - before)
"""
    Image.new("RGB", (20, 20)).save(tmp_path / "small.jpg")
    files = [str(tmp_path / name) for name in ("small.jpg", "large.jpg")]
    done = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True, check=True)
    assert 46 < float(done.stdout) < 46 + 120  # MiB


def test_files_of_version_1_load_and_merge(folder, tmp_path):
    """What version 0.1 wrote: sums in floating point, of values in [0, 1], luminance in the groups."""
    new = folders.collect(folder, tmp_path / "new.npz", sizes=[16])
    about = {key: value for key, value in new.provenance.items() if key not in ("schema", "left_out", "notes")}
    arrays = {"provenance": np.array(json.dumps(about))}
    for name, statistics in {"total/0": new.total, "total/16": new.rescaled[16], "groups": new.groups}.items():
        arrays |= {f"{name}/extent": statistics.extent.numpy(), f"{name}/sums": statistics.sums.numpy()}
        arrays[f"{name}/products"] = half_of_lags(statistics.products).numpy()
    arrays["total/0/own"] = half_of_lags(new.total.own).numpy()
    files.write_npz(tmp_path / "old.npz", arrays)
    old = statistics_files.load_statistics(tmp_path / "old.npz")
    assert torch.equal(old.total.products, new.total.products) and torch.equal(old.groups.sums, new.groups.sums)
    merged = statistics_files.merge(old, new)
    statistics_files.save_statistics(tmp_path / "merged.npz", merged)
    merged = statistics_files.load_statistics(tmp_path / "merged.npz")
    assert int(merged.total.images) == 14 and merged.groups.channels == 1
    torch.testing.assert_close(merged.total.products, 2 * new.total.products)
    torch.testing.assert_close(merged.groups.products, 2 * new.groups.products)
    torch.testing.assert_close(merged.total.own, 2 * new.total.own)
    assert torch.equal(merged.sums[0].parts[8]["products"], new.sums[0].parts[8]["products"])  # these stay exact


def test_files_of_later_versions_and_other_shapes_are_refused(folder, tmp_path):
    collection = folders.collect(folder, tmp_path / "new.npz")
    later = replace(collection, provenance=collection.provenance | {"schema": 3})
    statistics_files.save_statistics(tmp_path / "later.npz", later)
    with pytest.raises(files.DatasetError, match="a later version of ndlib wrote it"):
        statistics_files.load_statistics(tmp_path / "later.npz")
    for what, wrong in {"products": torch.zeros(2), "sums": torch.zeros(3, 29, 29)}.items():
        sums = Sums((), {8: collection.sums[0].parts[8] | {what: wrong}})
        statistics_files.save_statistics(tmp_path / "wrong.npz", replace(collection, sums={0: sums}))
        with pytest.raises(files.DatasetError, match="another shape or type"):
            statistics_files.load_statistics(tmp_path / "wrong.npz")

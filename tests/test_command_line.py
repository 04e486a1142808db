"""The command ``ndlib``, or ``python -m ndlib``, as users call it."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from ndlib import cli
from ndlib.experiments import benchmark, ledger
from ndlib.experiments.settings import Settings, choices_of, given_fields
from ndlib.pictures import folders, kernels, statistics_files

RUN = "train --dataset photo-patches --method nd --width 0.25 --option block_size=8 --train-images 128"
RUN += " --test-images 100 --batch-size 64 --epochs 1"


HELP = """
import sys, time
start = time.perf_counter()
from ndlib.cli import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
seconds = time.perf_counter() - start
assert "torch" not in sys.modules and "numpy" not in sys.modules
print("seconds", seconds)
"""


def test_help_names_the_program_and_does_not_wait_for_torch():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ndlib [-h]")
    assert all(f"    {command} " in done.stdout for command in cli.COMMANDS)
    assert float(done.stdout.split()[-1]) < 5  # half a second on an idle machine


def test_python_m_ndlib_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "ndlib", "models", "lenet"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("ndlib: unknown architecture 'lenet'; there are vgg-small")


def test_train_command_has_an_argument_for_every_setting(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for setting in given_fields():
        flag = setting.metadata.get("flag", "--" + setting.name.replace("_", "-"))
        assert f"[{flag} " in said or f" {flag} " in said
        assert setting.metadata["help"] in said
        assert set(choices_of(setting)) <= set(re.findall(r"[\w-]+", said))
    parsed = cli.make_parser(["train"]).parse_args(["train", "--dataset", "mnist", "--method", "nd"])
    given = {name: value for name, value in vars(parsed).items() if name in {f.name for f in given_fields()}}
    assert Settings(**given | {"options": {}}) == Settings("mnist", "nd")


def test_train_command_adds_a_line_that_repeats_the_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ndlib", *RUN.split(), "--save-weights", "net.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "ND, VGG-small, photo patches, block_size=8, seed 0, 1 epoch, lr 0.1: test" in done.stdout
    (line,) = (tmp_path / "data/results/photo-patches.jsonl").read_text().splitlines()
    record = json.loads(line)
    ledger.validate(record)
    assert record["options"] == "block_size=8"
    assert record["command"] == f"python -m ndlib {RUN} --save-weights net.npz"
    assert (tmp_path / "net.npz").exists()


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ("--dataset imagenet", 1, "unknown data set 'imagenet'; there are photo-patches, cifar10"),
        ("--train-images 999999", 1, "train_images must lie between 1 and 5000"),
        ("--batch-size 500", 1, "batch_size must lie between 1 and the number of training images, 128"),
        ("--method gn", 2, "invalid choice: 'gn' (choose from"),
        ("--arch resnet", 2, "invalid choice: 'resnet' (choose from"),
        ("--option blocks=16", 2, "'blocks=16' is not NAME=VALUE with NAME one of block_size, centering"),
        ("--option block_size=0", 2, "block_size must be a whole number of at least 1, got 0"),
        ("--option eps=abc", 2, "eps must be a finite number of at least 0, got 'abc'"),
        ("--option block_size=x", 2, "block_size must be a whole number of at least 1, got 'x'"),
        ("--option block_size=1.5", 2, "block_size must be a whole number of at least 1, got 1.5"),
        ("--option block_size=True", 2, "block_size must be a whole number of at least 1, got True"),
        ("--option detach_root=1", 2, "detach_root must be True or False, got 1"),
        ("--option freeze_after=soon", 2, "freeze_after must be None or a whole number of at least 1, got 'soon'"),
        ("--option solver=3", 2, "solver must be one of 'newton_schulz', 'eigh', 'polar', got 3"),
        ("--option solver=lu", 2, "solver must be one of 'newton_schulz', 'eigh', 'polar', got 'lu'"),
        ("--option process_group=1", 2, "'process_group=1' is not NAME=VALUE with NAME one of block_size, centering"),
        ("--device cuda", 2, "there is no GPU 'cuda' that this PyTorch can use; choose cpu"),
        ("--device mps", 2, "ndlib does not run on 'mps'; choose cpu or cuda"),
        ("--device foo", 2, "unknown device 'foo'; there are cpu and cuda"),
        ("--ledger .", 1, ". cannot be written; name a file in a folder that can be"),
        (f"--ledger {__file__}/l.jsonl", 1, "l.jsonl cannot be written"),
        ("--save-weights .", 1, ". cannot be written"),
        (f"--start {__file__}", 1, "test_command_line.py is no weights file of ndlib"),
    ],
)
def test_train_command_answers_a_mistake_with_one_line(tmp_path, monkeypatch, capsys, change, status, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    try:
        code = cli.main([*RUN.split(), *change.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ("--rounds 0", 2, "argument --rounds: must be a whole number of at least 1, got '0'"),
        ("--batch-size 0", 2, "argument --batch-size: must be a whole number of at least 1, got '0'"),
        ("--batch-size many", 2, "argument --batch-size: must be a whole number of at least 1, got 'many'"),
        ("--official /nope", 1, "/nope is no checkout of yechengxi/deconvolution: it has no models/deconv.py"),
        ("--out .", 1, ". cannot be written"),
        ("--device mps", 2, "ndlib does not run on 'mps'"),
    ],
)
def test_bench_command_refuses_a_mistake_before_any_timing(tmp_path, monkeypatch, capsys, change, status, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "measure", None)
    try:
        code = cli.main(["bench", "vgg-small", *change.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == status
    assert message in capsys.readouterr().err


# statistics ------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """Smooth noise, whose kernel has a negative ring, in two folders, and a file that is no picture."""
    rng = np.random.default_rng(0)
    for n in range(4):
        folder = tmp_path / "pictures" / "ab"[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noise = scipy.ndimage.gaussian_filter(rng.normal(size=(60, 70, 3)), (0.7, 0.7, 0)) * 120 + 128
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{n}.png")
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "pictures"


def test_statistics_command_prints_the_kernel_of_a_folder(pictures, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ndlib", "statistics", "pictures", "--out", "all.npz", "--sizes", "30", "--orders", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    skipped, total, *summary = done.stdout.splitlines()
    assert skipped == "skipped broken.png: cannot identify image file"
    assert total == "4 pictures, 1 skipped: all.npz"
    line = r"centre (\S+) \+- \S+, ring: minimum (\S+) \+- \S+ of the centre"
    centre, ring = re.search(line, summary[1]).groups()
    assert float(centre) > 0 > float(ring)
    assert re.search(r"centre \S+ \+- \S+, sigma .* pixels", summary[2])
    assert re.search(r"surround \S+ \+- \S+, sigma .* pixels", summary[3])
    assert re.fullmatch(r"  R\^2 0\.\d{4}", summary[4])
    found = statistics_files.load_statistics(tmp_path / "all.npz")
    assert int(found.total.images) == 4 and list(found.rescaled) == [30] and len(found.prefixes) == 2
    kernel = kernels.deconvolution_kernel(kernels.decompose(kernels.patch_covariance(found.total)))[0]
    assert float(centre) == pytest.approx(float(kernel[7, 7]), abs=1e-2)
    assert float(ring) == pytest.approx(float(kernels.surround_ratio(kernel)), abs=1e-3)


def test_statistics_command_merges_parts_to_the_whole(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for part in ("", "a", "b"):
        assert cli.main(["statistics", str(pictures / part), "--out", f"all{part}.npz"]) == 0
    capsys.readouterr()
    assert cli.main(["statistics", "--merge", "alla.npz", "allb.npz", "--out", "merged.npz"]) == 0
    assert capsys.readouterr().out.startswith("4 pictures, 0 skipped: merged.npz\n")
    ours, whole = (statistics_files.load_statistics(tmp_path / file).total for file in ("merged.npz", "all.npz"))
    np.testing.assert_array_equal(ours.products, whole.products)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("nowhere --out x.npz", 1, "there are no pictures below nowhere"),
        ("pictures --out x.npz --sizes 5", 1, "a size must be at least 15 pixels, got 5"),
        ("--merge a.npz b.npz --out x.npz", 1, "a.npz"),
        ("--merge a.npz b.npz --out x.npz --orders 2", 1, "leave out --sizes and --orders"),
        ("pictures --out .", 1, ". cannot be written"),
        ("--out x.npz", 2, "one of the arguments folder --merge is required"),
        ("pictures", 2, "required: --out"),
    ],
)
def test_statistics_command_answers_a_mistake_with_one_line(
    pictures, tmp_path, monkeypatch, capsys, arguments, status, message
):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(["statistics", *arguments.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "x.npz").exists()


def test_interrupted_command_exits_with_130(pictures, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "sums_of", interrupted)
    assert cli.main(["statistics", str(pictures), "--out", str(tmp_path / "x.npz")]) == 130
    assert "interrupted" in capsys.readouterr().err

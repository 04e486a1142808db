"""``python -m ndlib`` as users call it."""

import json
import subprocess
import sys

import pytest

from ndlib import __main__, ledger

RUN = "train --dataset photo-patches --method nd --width 0.25 --train-images 128 --test-images 100 --batch-size 64"
RUN += " --epochs 1"


def test_train_adds_a_line_that_repeats_the_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ndlib", *RUN.split(), "--save-weights", "net.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "ND, photo patches, 1 epochs: test" in done.stdout
    (line,) = (tmp_path / "data/results/photo-patches.jsonl").read_text().splitlines()
    record = json.loads(line)
    ledger.validate(record)
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
    ],
)
def test_mistakes_are_answered_in_a_line(tmp_path, monkeypatch, capsys, change, status, message):
    monkeypatch.chdir(tmp_path)
    try:
        code = __main__.main([*RUN.split(), *change.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []

"""Runs and sweeps: the record of a run, what an interruption costs, and that several processes make the same run."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from test_optimizers import needs_muon

from ndlib import __main__, files
from ndlib.experiments import checkpoints, datasets, ledger, models, runs, training
from ndlib.experiments.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance")

SMALL = Settings(
    "photo-patches", "nd", width=0.25, options={"block_size": 4}, train_images=256, test_images=200, epochs=3, seed=1,
    batch_size=64,
)  # fmt: skip
SWEEP = """
[settings]
dataset = "photo-patches"
width = 0.25
train_images = 128
test_images = 100
batch_size = 64
epochs = 1
seed = [0, 1]

[[arms]]
method = "bn"

[[arms]]
method = "nd"
options = { block_size = 4 }
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NDLIB_DATA", str(tmp_path / "cache"))


def run(settings, **options):
    return runs.train_once(settings, **{"progress": False} | options)


def accuracies(record):
    return [{k: v for k, v in e.items() if not k.endswith("seconds")} for e in record["curve"]]


@pytest.mark.parametrize("method", ["bn", "nd"])
def test_train_once_record_and_stored_network_agree(tmp_path, method):
    options = {"solver": "polar", "block_size": 4} if method == "nd" else {}
    settings = dataclasses.replace(SMALL, method=method, options=options, epochs=2)
    model, record = run(settings, command=["a", "b c"])
    ledger.append(tmp_path / "l.jsonl", record)
    assert ledger.read(tmp_path / "l.jsonl")[0] == record
    assert runs.find_record(settings, tmp_path / "l.jsonl") == record
    assert record["command"] == "a 'b c'"
    assert record["options"] == ("block_size=4 solver=polar" if method == "nd" else "")
    assert record["params"] == sum(p.numel() for p in model.parameters())
    patches = datasets.load("photo-patches").subset(256, 200)
    assert record["data_sha256"] == patches.sha256()
    scale = training.normaliser(patches, torch.device("cpu"))
    assert training.accuracy(model, patches.test_images, patches.test_labels, scale) == record["test_last"]

    models.save_network(model, tmp_path / "net.npz", record)
    stored, its_record = models.load_network(tmp_path / "net.npz")
    assert its_record == record
    assert not stored.training
    x = patches.test_images.float() / 255
    torch.testing.assert_close(stored(x), model.eval()(x), rtol=0.02, atol=0.05)  # half precision
    assert stored.state_dict().keys() == model.state_dict().keys()


def test_train_once_record_has_best_and_last_accuracy_and_summed_times(monkeypatch):
    curve = [
        {"epoch": n, "loss": 1.0, "train": accuracy, "test": accuracy, "train_seconds": 2.0, "test_seconds": 1.0}
        for n, accuracy in ((1, 10.0), (2, 30.0), (3, 20.0))
    ]
    monkeypatch.setattr(runs, "fit", lambda *_, **__: curve)
    _, record = run(SMALL)
    assert (record["test_best"], record["test_last"], record["train_seconds"]) == (30, 20, 6)


def test_settings_command_repeats_the_run(tmp_path, monkeypatch):
    settings = dataclasses.replace(SMALL, epochs=1, lr=0.05, augment="none")
    monkeypatch.chdir(tmp_path)
    assert __main__.main([*settings.command()[3:], "--ledger", "l.jsonl"]) == 0
    (record,) = ledger.read(tmp_path / "l.jsonl")
    assert accuracies(record) == accuracies(run(settings)[1])
    assert runs.find_record(settings, tmp_path / "l.jsonl") == record


def test_bn_frozen_run_fits_its_whitening_to_the_training_images():
    settings = dataclasses.replace(SMALL, method="bn-frozen", options={}, epochs=1, lr=1e-9)
    model, record = run(settings)
    images = runs.select_images(settings)
    mean, std = training.normaliser(images, torch.device("cpu"))
    expected = models.build("vgg-small", method="bn-frozen", classes=10, width=0.25)
    models.fit_whitening(expected, (images.train_images.float() - mean) / std)
    (ours, its) = (m.features[0] for m in (model, expected))
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, its.get_buffer(name))
    assert record["method"] == "bn-frozen"


def test_held_out_images_are_training_images_that_were_not_trained_on():
    settings = dataclasses.replace(SMALL, held_out=100, test_images=None)
    whole, part = datasets.load("photo-patches"), runs.select_images(settings)
    assert torch.equal(part.train_images, whole.train_images[:256])
    assert torch.equal(part.test_images, whole.train_images[256:356])
    assert torch.equal(part.test_labels, whole.train_labels[256:356])
    record = run(dataclasses.replace(settings, epochs=1))[1]
    assert (record["split"], record["test_images"]) == ("held-out", 100)
    with pytest.raises(ValueError, match="4950 training images and 100 held out are not among the 5000"):
        runs.select_images(dataclasses.replace(settings, train_images=4950))
    left = runs.select_images(dataclasses.replace(settings, train_images=None))
    assert (len(left.train_images), len(left.test_images)) == (4900, 100)


# Interruptions. --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"block_size": 4}},
        {"options": {"running": "covariance", "freeze_after": 6}},
        pytest.param({"optimizer": "muon", "lr": 0.01}, marks=needs_muon),
    ],
)
def test_interrupted_run_resumes_to_the_same_curve(tmp_path, monkeypatch, changes):
    settings = dataclasses.replace(SMALL, **changes)
    _, whole = run(settings)
    checkpoint = runs.checkpoint_of(settings, tmp_path / "l.jsonl", resume=False)
    measure, calls = training.accuracy, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(training, "accuracy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(settings, checkpoint=checkpoint)
    torch.manual_seed(99)
    _, resumed = run(settings, checkpoint=runs.checkpoint_of(settings, tmp_path / "l.jsonl", resume=True))
    assert len(calls) == 4  # one epoch was measured again, two were not
    assert accuracies(resumed) == accuracies(whole)
    assert list((tmp_path / "cache/checkpoints").iterdir()) == [checkpoint.file]


def test_checkpoint_belongs_to_one_run(tmp_path):
    names = {runs.checkpoint_of(s, tmp_path / "l", resume=True).file for s in (SMALL, dataclasses.replace(SMALL, lr=1))}
    assert len(names) == 2
    checkpoint = runs.checkpoint_of(SMALL, tmp_path / "l", resume=True)
    checkpoint.save({"curve": [1]})
    assert checkpoint.load() == {"curve": [1]}
    assert runs.checkpoint_of(SMALL, tmp_path / "l", resume=False).load() is None


def test_checkpoint_belongs_to_one_ledger(tmp_path):
    files = {runs.checkpoint_of(SMALL, tmp_path / name, resume=True).file for name in ("a", "b")}
    assert len(files) == 2


def test_damaged_checkpoint_is_refused_by_name(tmp_path):
    checkpoint = checkpoints.Checkpoint(tmp_path / "c.pt")
    checkpoint.save({"curve": []})
    checkpoint.file.write_bytes(checkpoint.file.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"c\.pt is damaged .*; delete it"):
        checkpoint.load()


def test_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    checkpoint = checkpoints.Checkpoint(tmp_path / "c.pt")
    checkpoint.save({"curve": [1]})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save({"curve": [1, 2]})
    assert checkpoint.load() == {"curve": [1]}
    assert list(tmp_path.iterdir()) == [checkpoint.file]


def test_killed_sweep_continues_to_the_same_ledger(tmp_path):
    """kill -9 in the middle, then the same command: every run once, and the accuracies of an undisturbed sweep."""
    text = SWEEP.replace("epochs = 1", "epochs = 4").replace("[0, 1]", "0")
    (tmp_path / "s.toml").write_text(text)
    command = [sys.executable, "-W", "ignore", "-m", "ndlib", "sweep", "s.toml", "--ledger"]
    process = subprocess.Popen([*command, "killed.jsonl"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any((tmp_path / "cache/checkpoints").glob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run([*command, "killed.jsonl"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("test") == 2
    assert not any((tmp_path / "cache/checkpoints").glob("*.pt"))
    records = ledger.read(tmp_path / "killed.jsonl")
    wanted = [accuracies(run(settings)[1]) for settings in runs.read_sweep(tmp_path / "s.toml")]
    assert [accuracies(record) for record in records] == wanted


# Sweeps. ---------------------------------------------------------------------------------------------------


def test_sweep_makes_the_runs_that_the_ledger_lacks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(SWEEP)
    assert __main__.main(["sweep", "s.toml", "--list"]) == 0
    assert capsys.readouterr().out.count("not run: python -m ndlib train --dataset photo-patches") == 4
    assert __main__.main(["sweep", "s.toml"]) == 0
    file = tmp_path / "data/results/s.jsonl"
    made = [(r["seed"], r["method"], r["options"]) for r in ledger.read(file)]
    assert made == [(0, "bn", ""), (0, "nd", "block_size=4"), (1, "bn", ""), (1, "nd", "block_size=4")]
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + lines[3])
    capsys.readouterr()
    assert __main__.main(["sweep", "s.toml"]) == 0
    assert [line.endswith("was there") for line in capsys.readouterr().out.splitlines()] == [True, False, False, True]
    assert sorted(json.loads(line)["seed"] for line in file.read_text().splitlines()) == [0, 0, 1, 1]


def test_sweep_continues_after_a_diverging_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(
        SWEEP.replace("[0, 1]", "0").replace('[[arms]]\nmethod = "bn"', '[[arms]]\nmethod = "none"\nlr = 1e30')
    )
    assert __main__.main(["sweep", "s.toml"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "1/2 no result, the loss is not finite in epoch 1" in first
    assert "--lr 1e+30" in first
    assert "2/2 ND" in second
    assert [r["method"] for r in ledger.read(tmp_path / "data/results/s.jsonl")] == ["nd"]
    assert not list((tmp_path / "cache/checkpoints").glob("*"))


def test_find_record_takes_all_images_for_their_number(tmp_path):
    whole = Settings("photo-patches", "bn", width=0.25, epochs=1)
    record = run(dataclasses.replace(whole, train_images=64, batch_size=64))[1] | {"batch_size": 128}
    ledger.append(tmp_path / "l.jsonl", record)
    assert runs.find_record(whole, tmp_path / "l.jsonl") is None
    ledger.append(tmp_path / "l.jsonl", record | {"train_images": 5000})
    assert runs.find_record(whole, tmp_path / "l.jsonl")["train_images"] == 5000


RUN = "[settings]\ndataset = 'photo-patches'\nmethod = 'nd'\n"


def test_read_sweep_takes_an_integer_for_a_number(tmp_path):
    """The ledger, which is strict about it, would refuse the record after the run."""
    (tmp_path / "s.toml").write_text(f"{RUN}lr = [1, 0.5]\noptions = {{ eps = 1e-3, detach_root = true }}")
    one, half = runs.read_sweep(tmp_path / "s.toml")
    assert type(one.lr) is float and (one.lr, half.lr) == (1.0, 0.5)
    assert one.options == {"eps": 1e-3, "detach_root": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[settings]\nmethods = 'nd'", "s.toml: unknown setting 'methods'; there are dataset, method"),
        ("[setting]\n", "s.toml: unknown table 'setting'; there are settings and arms"),
        ("[settings]\nmethod = 'nd'", "s.toml: a run has no dataset"),
        ("[settings", "s.toml is not TOML"),
        ("settings = 3", "s.toml: settings must be a table, [settings], got 3"),
        ("arms = 3", "s.toml: arms must be tables, [[arms]] each, got 3"),
        ("[arms]\nmethod = 'nd'", "s.toml: arms must be tables, [[arms]] each, got {'method': 'nd'}"),
        (f"{RUN}epochs = '3'", "s.toml: epochs must be an integer, got '3'"),
        (f"{RUN}seed = [0, '1']", "s.toml: seed must be an integer, got '1'"),
        (f"{RUN}train_images = 2.5", "s.toml: train_images must be an integer, got 2.5"),
        (f"{RUN}epochs = true", "s.toml: epochs must be an integer, got True"),
        (f"{RUN}lr = 'high'", "s.toml: lr must be a number, got 'high'"),
        (f"{RUN}arch = 3", "s.toml: arch must be a text in quotes, got 3"),
        (f"{RUN}options = 3", "s.toml: options must be a table, got 3"),
        (f"{RUN}options = {{ block_size = 1.5 }}", "s.toml: block_size must be a whole number of at least 1, got 1.5"),
    ],
)
def test_sweep_command_answers_a_mistake_in_the_file_with_one_line(tmp_path, monkeypatch, capsys, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(text)
    assert __main__.main(["sweep", "s.toml"]) == 1
    assert message in capsys.readouterr().err
    assert [f.name for f in tmp_path.iterdir()] == ["s.toml"]


def test_project_sweeps_can_be_read_and_were_run_whole():
    """They can be read, and what they found is what the ledgers hold: a sweep was run whole or not at all."""
    sweeps = sorted(files.path("sweeps").glob("*.toml"))
    assert len(sweeps) > 3
    for file in sweeps:
        settings = runs.read_sweep(file)
        held = files.path("results") / f"{file.stem}.jsonl"
        if held.exists():
            found = [runs.find_record(s, held) for s in settings]
            assert all(found), f"{file.name}: {found.count(None)} of {len(found)} runs were not made"
            assert len(ledger.read(held)) == len(found)


# Starts. ---------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path):
    """A file with a BN network that has learnt a little, and the settings of its run."""
    settings = dataclasses.replace(SMALL, method="bn", options={}, epochs=2)
    model, record = run(settings)
    models.save_network(model, tmp_path / "bn.npz", record)
    return tmp_path / "bn.npz", settings


def outputs(model, dataset):
    mean, std = training.normaliser(dataset, torch.device("cpu"))
    with torch.no_grad():
        return model.eval()((dataset.test_images.float() - mean) / std)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"method": "bn"}, True),
        ({"method": "nd", "variant": "uniform", "keep": "function"}, True),
        ({"method": "nd", "variant": "uniform", "keep": "function", "options": {"block_size": 4, "n_iter": 3}}, True),
        ({"method": "nd", "variant": "uniform", "keep": "weights"}, False),
    ],
)
def test_initial_network_takes_over_a_trained_start(trained, changes, same):
    file, settings = trained
    settings, dataset = dataclasses.replace(settings, start=str(file), seed=5, **changes), runs.select_images(settings)
    stored = models.load_network(file)[0]
    begun = runs.initial_network(settings, dataset)
    assert begun.training
    wanted, got = outputs(stored, dataset), outputs(begun, dataset)
    assert bool(torch.allclose(got, wanted, rtol=1e-3, atol=1e-4)) is same
    assert torch.equal(begun.classifier.bias, stored.classifier.bias) or same  # converted: the weights, head included
    record = run(dataclasses.replace(settings, epochs=1, lr=0.0))[1]
    assert (record["start"], record["keep"]) == (str(file), settings.keep)
    ledger.validate(record)


def test_start_on_another_data_set_gets_a_new_classifier(trained):
    file, settings = trained
    dataset = runs.select_images(settings)
    fewer = dataclasses.replace(dataset, classes=dataset.classes[:7])
    settings = dataclasses.replace(settings, start=str(file), dataset="another")
    begun, stored = runs.initial_network(settings, fewer), models.load_network(file)[0]
    assert begun.classifier.weight.shape[0] == 7
    kept = [torch.equal(a, b) for a, b in zip(begun.features.parameters(), stored.features.parameters(), strict=True)]
    assert all(kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0.5}, "bn.npz is vgg-small of width 0.25, not vgg-small of width 0.5"),
        ({"arch": "resnet18"}, "not resnet18 of width 0.25"),
        ({"method": "nd"}, "add the variant uniform"),
        ({"method": "none"}, "has the form bn; no none can be made of it"),
        ({"method": "nd", "variant": "uniform", "keep": "all"}, "unknown thing to keep 'all'; there are function, wei"),
    ],
)
def test_start_of_another_architecture_or_form_is_refused(trained, changes, message):
    file, settings = trained
    settings = dataclasses.replace(settings, **{"start": str(file)} | changes)
    with pytest.raises(ValueError, match=message):
        run(settings)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # NumPy leaves half an archive open
def test_start_that_is_no_weights_file_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "README.md").write_text("# Nothing")
    (tmp_path / "empty").touch()
    (tmp_path / "half.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:50])
    for name in ("other.npz", "array.npy", "README.md", "empty", "half.npz"):
        settings = dataclasses.replace(SMALL, start=str(tmp_path / name))
        with pytest.raises(
            ValueError, match=f"{name} is no weights file of ndlib, such as train --save-weights writes"
        ):
            runs.initial_network(settings, runs.select_images(settings))


def test_start_with_norms_that_cannot_be_fused_is_refused(tmp_path):
    changes = {"arch": "preact18", "method": "bn", "options": {}, "width": 0.125, "epochs": 1}
    settings = dataclasses.replace(SMALL, **changes)
    model, record = run(settings)
    models.save_network(model, tmp_path / "bn.npz", record)
    nd = dataclasses.replace(settings, method="nd", variant="uniform", start=str(tmp_path / "bn.npz"))
    with pytest.raises(ValueError, match="to keep its function, has other layers than the deconvolved preact18"):
        run(nd)
    runs.initial_network(dataclasses.replace(nd, keep="weights"), runs.select_images(nd))


def test_missing_start_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"the project carries no file 'weights/other.npz'; it has .*vgg-small"):
        run(dataclasses.replace(SMALL, start="weights/other.npz"))


# Precision and processes. ----------------------------------------------------------------------------------


def test_bfloat16_precision_is_used_and_recorded():
    seen = set()

    def note(module, _, output):
        if isinstance(module, torch.nn.Conv2d):
            seen.add(output.dtype)

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        record = run(dataclasses.replace(SMALL, precision="bfloat16", epochs=1))[1]
    finally:
        handle.remove()
    assert record["precision"] == "bfloat16"
    assert seen == {torch.bfloat16}
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, got 'half'"):
        run(dataclasses.replace(SMALL, precision="half"))


def test_two_processes_make_the_same_run_as_one(tmp_path):
    settings = dataclasses.replace(SMALL, epochs=2)
    words = [*settings.command()[3:], "--ledger", "l.jsonl"]
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "ndlib", *words], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = ledger.read(tmp_path / "l.jsonl")
    assert record["processes"] == 2
    _, alone = run(settings)
    for ours, its in zip(record["curve"], alone["curve"], strict=True):  # float32; exactly in distributed_worker.py
        assert ours["loss"] == pytest.approx(its["loss"], rel=5e-3)
        assert ours["train"] == pytest.approx(its["train"], abs=3)

"""The record of runs: what it accepts, and that no accident loses a line."""

import json
import math
import tempfile
import warnings
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndlib import files
from ndlib.experiments import ledger, runs
from ndlib.experiments.settings import Settings, recorded_types

FEW = settings(max_examples=100, deadline=None)
RECORD = {
    "schema": 4,
    "dataset": "photo-patches",
    "size": 0,
    "split": "test",
    "data_sha256": "0" * 64,
    "train_images": 100,
    "test_images": 50,
    "arch": "vgg-small",
    "width": 0.5,
    "variant": "paper",
    "method": "nd",
    "options": "",
    "start": "",
    "keep": "",
    "epochs": 1,
    "seed": 0,
    "optimizer": "sgd",
    "lr": 0.1,
    "schedule": "cosine",
    "momentum": 0.9,
    "weight_decay": 1e-3,
    "batch_size": 64,
    "augment": "crop-flip",
    "loss": "cross-entropy",
    "precision": "float32",
    "processes": 1,
    "metric": "top-1",
    "train_best": 50.0,
    "train_last": 50.0,
    "test_best": 40.0,
    "test_last": 40.0,
    "curve": [{"epoch": 1, "loss": 1.0, "train": 50.0, "test": 40.0, "train_seconds": 1.0, "test_seconds": 0.1}],
    "train_seconds": 1.0,
    "test_seconds": 0.1,
    "params": 1000,
    "stretches": [],
    "device": "cpu",
    "python": "3.11",
    "torch": "2",
    "ndlib": "0",
    "commit": None,
    "date": "2026-01-01T00:00:00+00:00",
    "command": "python -m ndlib train",
}


def test_read_returns_appended_records_in_order(tmp_path):
    file = tmp_path / "new" / "ledger.jsonl"
    for seed in range(3):
        ledger.append(file, RECORD | {"seed": seed})
    records = ledger.read(file)
    assert [r["seed"] for r in records] == [0, 1, 2]
    assert list(records[0]) == list(ledger.SCHEMA)
    assert ledger.select(records, seed=2, method="nd") == [records[2]]
    assert ledger.select(records, method="bn") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, r"unknown keys \['extra'\]"),
        ({"seed": "0"}, "seed must be .*int"),
        ({"seed": True}, "seed must be .*int"),
        ({"schema": 1}, "schema 1 is not known; this version writes schema 4"),
        ({"split": "train"}, "split must be 'test' or 'held-out', got 'train'"),
    ],
)
def test_append_refuses_a_record_of_another_form(tmp_path, change, message):
    with pytest.raises(ledger.LedgerError, match=message):
        ledger.append(tmp_path / "l.jsonl", RECORD | change)
    assert not (tmp_path / "l.jsonl").exists()


def test_validate_refuses_a_missing_key_and_a_value_that_is_no_number(tmp_path):
    with pytest.raises(ledger.LedgerError, match=r"lacks \['seed'\]"):
        ledger.validate({k: v for k, v in RECORD.items() if k != "seed"})
    with pytest.raises(ledger.LedgerError, match="train_last must be a percentage"):
        ledger.validate(RECORD | {"train_last": math.nan})
    with pytest.raises(ValueError, match="Out of range float"):
        ledger.append(tmp_path / "l.jsonl", RECORD | {"lr": math.inf})


@pytest.mark.parametrize("key", ["train_best", "train_last", "test_best", "test_last"])
def test_validate_refuses_an_accuracy_above_100_percent(key):
    with pytest.raises(ledger.LedgerError, match=f"{key} must be a percentage, got 101"):
        ledger.validate(RECORD | {key: 101.0})


def test_append_writes_the_keys_in_the_order_of_the_schema(tmp_path):
    ledger.append(tmp_path / "l.jsonl", dict(reversed(RECORD.items())))
    (record,) = ledger.read(tmp_path / "l.jsonl")
    assert list(record) == list(ledger.SCHEMA)


def test_read_skips_half_a_line_only(tmp_path):
    file = tmp_path / "l.jsonl"
    ledger.append(file, RECORD)
    with file.open("a") as stream:
        stream.write(json.dumps(RECORD)[:50])  # the writer was killed
    ledger.append(file, RECORD | {"seed": 9})
    with pytest.warns(UserWarning, match=r"l\.jsonl, line 2: skipped"):
        assert [r["seed"] for r in ledger.read(file)] == [0, 9]


@pytest.mark.parametrize("line", ["[1]", "3", "null", '{"schema": 1}', "\x00\x00"])
def test_read_reports_damage_by_line(tmp_path, line):
    file = tmp_path / "l.jsonl"
    ledger.append(file, RECORD)
    with file.open("a") as stream:
        stream.write(line + "\n")
    with pytest.warns(UserWarning, match="line 2: skipped"):
        assert len(ledger.read(file)) == 1


def test_schema_has_every_setting_and_its_type():
    """The settings are the description; the ledger adds what was measured."""
    chosen = Settings("cifar10", "nd", train_images=1, test_images=1)
    assert chosen.configuration().keys() == set(recorded_types()) | {"split"} <= ledger.SCHEMA.keys()
    for key, value in chosen.configuration().items():
        assert type(value) is ledger.SCHEMA[key], key
    assert {f.name for f in fields(Settings)} - set(recorded_types()) == {"held_out"}  # it is "split" in the ledger
    ledger.validate(RECORD | chosen.configuration())


def test_schema_keeps_the_keys_and_the_order_of_old_lines():
    assert list(ledger.SCHEMA) == list(RECORD)
    for file in files.path("results").glob("*.jsonl"):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            kept = [key for key in ledger.SCHEMA if key in record]
            assert list(record) == kept, file.name
            ledger.validate(ledger.migrated(record))


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_lines_of_earlier_schemas_are_brought_up(tmp_path, schema):
    file = tmp_path / "l.jsonl"
    later = {key for version, added in ledger.ADDED.items() if version > schema for key in added}
    file.write_text(json.dumps({k: v for k, v in RECORD.items() if k not in later} | {"schema": schema}) + "\n")
    assert ledger.read(file) == [RECORD]


def test_a_line_of_a_later_schema_is_refused_and_no_run_made_again(tmp_path):
    file = tmp_path / "l.jsonl"
    ledger.append(file, RECORD)
    with file.open("a") as stream:
        stream.write(json.dumps(RECORD | {"schema": 5, "more": 1}) + "\n")
    with pytest.raises(ledger.LedgerError, match=r"l\.jsonl, line 2: schema 5 is of a later ndlib"):
        ledger.read(file)
    before = file.read_bytes()
    with pytest.raises(ledger.LedgerError, match="update it"):
        list(runs.sweep([Settings("photo-patches", "nd")], file))
    assert file.read_bytes() == before


@FEW
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), st.lists, max_leaves=4),
    st.sampled_from(sorted(RECORD)),
)
def test_any_value_in_a_line_is_right_or_skipped_with_a_warning(value, key):
    """A ledger may come from anybody: what reading returns always has the form of the ledger."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder, "l.jsonl")
        file.write_text(json.dumps(RECORD | {key: value}) + "\n")
        try:
            for record in ledger.read(file):
                ledger.validate(record)
        except ledger.LedgerError as error:
            assert key == "schema" and "later ndlib" in str(error)


@FEW
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_skipped(content):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder, "l.jsonl")
        file.write_bytes(content)
        assert ledger.read(file) == []


def test_display_names():
    assert ledger.display_name("cifar10") == "CIFAR-10"
    assert ledger.display_name("nd") == "ND"


def test_recorded_runs_are_valid_and_consistent():
    ledgers = sorted(files.path("results").glob("*.jsonl"))
    assert ledgers
    for record in ledger.read(*ledgers):
        curve = record["curve"]
        assert len(curve) == record["epochs"]
        for split in ("train", "test"):
            assert record[f"{split}_last"] == curve[-1][split]
            assert record[f"{split}_best"] == max(e[split] for e in curve)
            images = record[f"{split}_images"]
            if split == "train":
                images -= images % record["batch_size"]
            for e in curve:  # an accuracy is a whole number of images
                assert e[split] * images / 100 == pytest.approx(round(e[split] * images / 100), abs=1e-6)


def test_read_skips_a_line_that_is_no_text(tmp_path):
    file = tmp_path / "l.jsonl"
    ledger.append(file, RECORD)
    file.write_bytes(file.read_bytes() + b'{"schema": \xff}\n')
    ledger.append(file, RECORD)
    with pytest.warns(UserWarning, match=r"l\.jsonl, line 2: skipped"):
        assert len(ledger.read(file)) == 2

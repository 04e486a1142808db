"""The visit of other people's networks, on a small one; and what the file of visits holds."""

import json
import subprocess
import sys
from pathlib import Path

from ndlib import files
from ndlib.experiments import zoo, zoo_networks


def visited(file):
    """The lines of a visit of the networks in zoo_worker.py."""
    worker = Path(__file__).with_name("zoo_worker.py")
    return subprocess.run(
        [sys.executable, worker, file], check=True, capture_output=True, text=True
    ).stdout.splitlines()


def test_a_visit_notes_everything_and_goes_on_where_it_stopped(tmp_path):
    file = tmp_path / "zoo.jsonl"
    lines = visited(file)
    assert lines[0] == "timm small: ok" and "does not run on the example: of its own" in lines[1]
    good, broken, writes = zoo.read(file)
    assert (good["norms"], good["dropped"], good["converted"], good["kept"]) == (1, 1, 2, {})
    assert good["traced"] and good["bn_trains"] and good["nd_trains"] and good["input_kept"] and good["flags_kept"]
    assert good["alias_error"] == 0 and good["fold_error"] < 1e-5 and good["pretrained_error"] < 1e-4
    assert broken["failed"].startswith("convert: ValueError") and "converted" not in broken
    assert writes["input_kept"] is False
    assert visited(file) == []
    with file.open("a") as stream:
        stream.write(json.dumps(broken | {"failed": ""}) + "\n")  # visited again
    assert [r["failed"] for r in zoo.read(file)] == ["", "", ""]
    (row,) = zoo.summary([good, broken])
    assert (row["networks"], row["without"], row["trains"], row["failed"]) == (1, 1, 1, ["broken"])


def test_what_got_worse_is_named():
    good = {"family": "timm", "name": "a", "failed": "", "kept": {}, "pretrained_error": 1e-6}
    assert zoo.worse([good], [good]) == []
    assert zoo.worse([good | {"kept": {"no taker": 2}}], [good]) == ["timm a: 2 norms stay, 0 before"]
    assert zoo.worse([good | {"pretrained_error": 0.1}], [good]) == ["timm a: error 1.0e-01"]
    assert zoo.worse([good | {"pretrained_error": 0.1, "pretrained_error_float64": 1e-12}], [good]) == []
    assert zoo.worse([good | {"failed": "train: no"}], [good | {"failed": "train: no"}]) == []


def test_torchvision_has_a_network_of_every_file_with_batch_normalisation(monkeypatch):
    import torchvision

    monkeypatch.setattr(torchvision.models, "list_models", lambda: ["resnet34", "resnet18", "alexnet", "vgg11_bn"])
    found = [(n.file, n.name) for n in zoo_networks.catalogue("torchvision")]
    assert found == [("resnet", "resnet18"), ("vgg", "vgg11_bn")]


def test_the_record_holds_no_silent_change():
    records = zoo.read(files.path("zoo.jsonl"))
    assert records and {r["family"] for r in records} <= set(zoo_networks.FAMILIES)
    for record in records:
        name = f"{record['family']} {record['name']}"
        assert record.get("alias_error", 0) < 1e-5, name
        assert record.get("flags_kept", True) and record.get("ties_kept", True), name
        assert record.get("fold_error", 0) < 1e-4, name
        assert record.get("pretrained_error_float64", record.get("pretrained_error", 0)) < 1e-4, name

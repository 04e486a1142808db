"""The race on a page is the race in torch: the same digits, weights, batches, losses and reports."""

import base64
import json
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright._impl._driver import compute_driver_executable

from ndlib import files
from ndlib.bookwork.widgets import race, race_study
from ndlib.diagnostics import layer_whiteness

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / "ndlib" / "bookwork" / "widgets"
NODE = compute_driver_executable()[0]
PACKED = files.path("live-race-digits.bin")
STEPS = 10  # the first epoch, and into the second


@pytest.fixture
def play(tmp_path):
    def start(arm, rate, seed):
        file = tmp_path / "request.json"
        settings = race_study.in_javascript(arm) | {"seed": seed, "rate": rate}
        settings |= {"batch": race.BATCH, "momentum": race.MOMENTUM, "decay": race.DECAY}
        request = {"packed": base64.b64encode(PACKED.read_bytes()).decode(), "trained": race.TRAINED}
        request |= {"count": race.TRAINED + race.HELD_OUT, "settings": settings, "steps": STEPS}
        file.write_text(json.dumps(request))
        command = [NODE, str(HERE / "race-numbers.mjs"), str(MODULES), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return start


def close(found, wanted, tolerance=1e-3):
    wanted = torch.as_tensor(wanted).detach().double().flatten().numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("arm", race_study.ARMS)
@pytest.mark.filterwarnings("ignore:.*rows for a covariance:UserWarning")
def test_the_race_is_the_one_in_torch(play, arm):
    method, options = race_study.ARMS[arm]
    digits, seed, rate = race.digits(), 3, 0.025
    model = race.network(method, seed, **options)
    found = play(arm, rate, seed)
    close(found["before"]["weights"], model[0].weight, 1e-7)
    close(found["losses"], list(race.train(model, digits, seed, rate, STEPS)))

    # Where numbers are equal but for rounding, pooling may take another: after these steps the weights of torch in
    # single and in double precision differ by 3e-3.
    after = found["after"]
    assert after["accuracy"] == pytest.approx(race.accuracy(model, digits), abs=0.5)  # of one digit in 200
    with torch.no_grad():
        confidence, predicted = model(digits.held_out).softmax(1).max(1)
    assert (np.array(after["predicted"]) != predicted.numpy()).sum() <= 1
    close(after["confidence"], confidence, 2e-2)
    close(after["weights"], model[0].weight, 1e-2)
    if method != "nd":
        assert after["folded"] is None and after["whiteness"][0]["after"] is None
        return
    close(after["folded"], model[0].folded(digits.held_out, model[0].weight, model[0].bias)[0], 1e-2)
    whiteness = layer_whiteness(model, digits.held_out[:50]).values()
    close([w["before"] for w in after["whiteness"]], [w.whiteness_before for w in whiteness], 1e-2)
    close([w["after"] for w in after["whiteness"]], [w.whiteness_after for w in whiteness], 1e-2)


def test_the_digits_are_packed_without_loss(play):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (16, 28, 28), dtype=np.uint8) * generator.integers(0, 2, (16, 28, 28), np.uint8)
    labels = generator.integers(0, 10, 16)
    unpacked = race.unpack(race.pack(images, labels), 16)
    np.testing.assert_array_equal(unpacked[0], images)
    np.testing.assert_array_equal(unpacked[1], labels)
    assert PACKED.stat().st_size < 120_000
    found = play("plain", 0.1, 0)
    images, labels = race.unpack(PACKED.read_bytes(), race.TRAINED + race.HELD_OUT)
    np.testing.assert_array_equal(found["images"], images.flatten())
    np.testing.assert_array_equal(found["labels"], labels)


def test_batches_are_all_digits_in_a_random_order():
    epoch = np.concatenate(list(race.batches(1, race.TRAINED // 50, 50)))
    np.testing.assert_array_equal(np.sort(epoch), np.arange(race.TRAINED))
    numbers = race.random_numbers(5, 100_000)
    assert abs(numbers.mean() - 0.5) < 0.005 and abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.02


def test_settings_and_rates_are_those_that_did_best():
    records = [json.loads(line) for line in files.path("live-race.jsonl").read_text().splitlines()]
    chosen = {}
    for arm in race_study.ARMS:
        tried = defaultdict(list)
        for r in records:
            if r["arm"] == arm and r["phase"] != "reported":
                tried[r["batch"], r["momentum"], r["rate"]].append(np.mean(r["held_out"]))
        chosen[arm] = max(tried, key=lambda setting: np.mean(tried[setting]))
        assert chosen[arm][:2] == (race.BATCH, race.MOMENTUM)
    for arm, (_, _, rate) in chosen.items():
        reported = [r for r in records if r["arm"] == arm and r["phase"] == "reported"]
        assert [r["seed"] for r in reported] == list(race_study.REPORTED) and len(reported) == 20
        assert {r["rate"] for r in reported} == {rate} and reported[0]["options"] == race_study.ARMS[arm][1]

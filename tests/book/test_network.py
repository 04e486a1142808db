"""The small networks in a browser: what tests/widgets finds under Node, and a race in workers."""

import base64
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from ndlib import files
from ndlib.bookwork.widgets import bundle, race, race_study

NUMBERS = Path(__file__).parents[1] / "widgets"

LAYERS = """async ([network, products, cases, requests]) => {
  const load = (source) => import(`data:text/javascript;base64,${source}`);
  const [module, bytes, { answer }] = await Promise.all([network, products, cases].map(load));
  const engines = { plain: module.plainEngine(8), vector: await module.vectorEngine(bytes.products, 8) };
  return JSON.parse(requests).map((request) => answer(module, engines[request.engine], request));
}"""

# The losses of a race in a worker, and what it reports at its end.
RACE = """async ([source, packed, settings, simd, trained, count]) => {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const ask = (name, ...values) => new Promise((resolve, reject) => {
    worker.onerror = (event) => reject(new Error(event.message));
    worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data.result));
    worker.postMessage({ name, values });
  });
  await ask("start", { packed: bytes, count, trained }, settings, simd);
  const reports = [];
  for (let step = 0; step < 10; step++) reports.push(await ask("train", 1));
  worker.terminate();
  const { accuracy, seconds, predicted } = reports[9];
  return { losses: reports.map((report) => report.loss), accuracy, seconds, predicted: predicted.length };
}"""


@pytest.fixture
def page(browser):
    opened = browser.new_page()
    yield opened
    opened.close()


def as_text(file):
    return base64.b64encode(file.read_bytes()).decode()


@pytest.mark.filterwarnings("ignore:.*rows for a covariance:UserWarning")
@pytest.mark.filterwarnings("ignore:block_size=:UserWarning")
def test_layers_are_those_of_torch(page):
    spec = importlib.util.spec_from_file_location("cases", NUMBERS / "test_network.py")
    cases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    requests, wanted = zip(*[case for seed in range(4) for case in cases.drawn_cases(seed)], strict=True)
    modules = bundle.FOLDER / "network.mjs", bundle.FOLDER / "products-wasm.mjs", NUMBERS / "network-cases.mjs"
    for engine in cases.ENGINES:
        asked = json.dumps([r | {"engine": engine} for r in requests], default=lambda t: t.detach().flatten().tolist())
        answers = page.evaluate(LAYERS, [*map(as_text, modules), asked])
        for found, expected in zip(answers, wanted, strict=True):
            for mine, theirs in zip(found, expected, strict=True):
                cases.close(mine, theirs)


@pytest.mark.parametrize("simd", [True, False])
@pytest.mark.parametrize("arm", race_study.ARMS)
@pytest.mark.filterwarnings("ignore:.*rows for a covariance:UserWarning")
def test_a_race_in_a_worker(page, arm, simd):
    method, options = race_study.ARMS[arm]
    settings = race_study.in_javascript(arm) | {"seed": 3, "rate": 0.025}
    settings |= {"batch": race.BATCH, "momentum": race.MOMENTUM, "decay": race.DECAY}
    packed = as_text(files.path("live-race-digits.bin"))
    count = race.TRAINED + race.HELD_OUT
    worker = bundle.module("live-race-worker")
    found = page.evaluate(RACE, [worker, packed, settings, simd, race.TRAINED, count])
    model, digits = race.network(method, 3, **options), race.digits()
    np.testing.assert_allclose(found["losses"], list(race.train(model, digits, 3, 0.025, 10)), rtol=2e-3)
    assert found["accuracy"] == pytest.approx(race.accuracy(model, digits), abs=0.5)
    assert found["predicted"] == race.HELD_OUT and found["seconds"] > 0

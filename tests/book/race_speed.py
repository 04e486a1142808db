"""How soon each arm of the race reaches 88 % of the held-out digits in Chromium, three arms at a time; by the clock.

    python tests/book/race_speed.py [--seeds 10] [--goal 88] [--plain]

Each arm at its rate in data/live-race.jsonl, in a worker of its own, for ten seconds or until its goal is reached. A
report is made, and the goal looked for, after every other step.
"""

import argparse
import base64
import json
import statistics

import chromium
from playwright.sync_api import sync_playwright

from ndlib import files
from ndlib.bookwork.widgets import bundle, race, race_study

RACE = """([source, packed, arms, simd, trained, count, goal]) => {
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const race = async (settings) => {
    const worker = new Worker(address);
    const ask = (name, ...values) => new Promise((resolve, reject) => {
      worker.onerror = (event) => reject(new Error(event.message));
      worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data.result));
      worker.postMessage({ name, values });
    });
    await ask("start", { packed: bytes, count, trained }, settings, simd);
    const start = performance.now();
    for (;;) {
      const { step, seconds, accuracy } = await ask("train", 2);
      const clock = (performance.now() - start) / 1000;
      if (accuracy < goal && clock < 10) continue;
      worker.terminate();
      return { step, seconds, clock: accuracy < goal ? null : clock };
    }
  };
  return Promise.all(arms.map(race));
}"""


def chosen_rates():
    """The learning rate of each arm in the reported runs."""
    lines = files.path("live-race.jsonl").read_text().splitlines()
    return {r["arm"]: r["rate"] for r in map(json.loads, lines) if r["phase"] == "reported"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--goal", type=float, default=88)
    parser.add_argument("--plain", action="store_true", help="without WebAssembly")
    args = parser.parse_args()
    packed = base64.b64encode(files.path("live-race-digits.bin").read_bytes()).decode()
    names = ["plain", "BN", "ND as recommended"]
    rates = chosen_rates()
    shared = {"batch": race.BATCH, "momentum": race.MOMENTUM, "decay": race.DECAY}
    arms = [shared | race_study.in_javascript(name) | {"rate": rates[name]} for name in names]
    found = {name: [] for name in names}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.system_browser(), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        for seed in range(1, args.seeds + 1):
            seeded = [arm | {"seed": seed} for arm in arms]
            asked = [bundle.module("live-race-worker"), packed, seeded, not args.plain]
            asked += [race.TRAINED, race.TRAINED + race.HELD_OUT, args.goal]
            for name, result in zip(names, page.evaluate(RACE, asked), strict=True):
                found[name].append(result)
        browser.close()
    for name, results in found.items():
        reached = [r for r in results if r["clock"] is not None]
        line = (
            f"{name:18} rate {rates[name]:<8g} reached {args.goal:g} % within 10 s in {len(reached)} of {len(results)}"
        )
        if reached:
            steps, seconds, clock = (statistics.median(r[k] for r in reached) for k in ("step", "seconds", "clock"))
            line += f"; medians of these: {steps:g} steps, {seconds:.2f} s of training, {clock:.2f} s by the clock"
        print(line)


if __name__ == "__main__":
    main()

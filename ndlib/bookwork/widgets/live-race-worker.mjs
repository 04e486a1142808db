// One arm of the race, in a worker of its own: `start` begins anew, `train` takes some steps; both report.

import { answer } from "./background.mjs";
import { standardised, unpack } from "./digits.mjs";
import { plainEngine, vectorEngine } from "./network.mjs";
import { products } from "./products-wasm.mjs";
import { racer } from "./race.mjs";

let engine, race, step, seconds, loss;

// `seconds` counts the training steps alone, not what is measured for the reports.
const report = () => ({ step, seconds, loss, ...race.report() });

answer({
  /** Digits { packed, count, trained } as `unpack` takes them, settings as `racer` does; simd: may vectors be used? */
  async start(digits, settings, simd = true) {
    engine ??= (simd && (await vectorEngine(products))) || plainEngine();
    engine.release(0);
    const { images, labels } = await unpack(digits.packed, digits.count);
    race = racer(engine, { images: standardised(images), labels, trained: digits.trained }, settings);
    [step, seconds, loss] = [0, 0, null];
    return report();
  },
  train(steps) {
    for (let i = 0; i < steps; i++) {
      const start = performance.now();
      loss = race.step();
      seconds += (performance.now() - start) / 1000;
      step += 1;
    }
    return report();
  },
});

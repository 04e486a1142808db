// One arm of the race, in a worker of its own.
//
// To it:    { type: "start", digits, settings, simd }   begins anew, with settings as `racer` takes them and the digits
//                                                       { packed, count, trained } as `unpack` takes them
//           { type: "run", steps, every }               so many steps from now on, a report after each `every` of them
//           { type: "pause" } and { type: "rate", rate }
// From it:  { type: "report", run, step, seconds, loss, ...report() }   step 0 when it is ready, and with the last step
//           { type: "error", run, message }
//
// `seconds` counts the training steps alone, not what is measured for the reports. `run` is the number of the start, so
// that reports from before a new one can be told apart.

import { plainEngine, vectorEngine } from "./network.mjs";
import { products } from "./products-wasm.mjs";
import { racer, standardised, unpack } from "./race.mjs";

let [run, race, waiting] = [0, null, false];
let [step, seconds, loss, last, every] = [0, 0, null, 0, 1];

// Between two steps messages come in. A timer would wait for four milliseconds each time.
const { port1: here, port2: there } = new MessageChannel();

const report = () => {
  const shown = race.report();
  const arrays = [shown.predicted, shown.confidence, shown.weights, ...(shown.folded ? [shown.folded] : [])];
  self.postMessage({ type: "report", run, step, seconds, loss, ...shown }, arrays.map((array) => array.buffer));
};

function trainOn() {
  waiting = false;
  if (step >= last) return;
  try {
    const start = performance.now();
    loss = race.step();
    seconds += (performance.now() - start) / 1000;
    step += 1;
    if (step % every === 0 || step === last) report();
    waiting = true;
    there.postMessage(null);
  } catch (error) {
    self.postMessage({ type: "error", run, message: error.message });
  }
}

const answers = {
  async start({ digits, settings, simd }) {
    const mine = ++run;
    last = step; // the run before this one ends
    const engine = (simd && (await vectorEngine(products))) || plainEngine();
    const { images, labels } = await unpack(digits.packed, digits.count);
    if (mine !== run) return; // started anew in the meantime
    race = racer(engine, { images: standardised(images), labels, trained: digits.trained }, settings);
    [step, seconds, loss, last] = [0, 0, null, 0];
    report();
  },
  run(asked) {
    last = step + asked.steps;
    every = asked.every;
    if (!waiting) trainOn();
  },
  pause() {
    last = step;
  },
  rate({ rate }) {
    race.settings.rate = rate;
  },
};

here.onmessage = trainOn;
self.onmessage = ({ data }) => answers[data.type](data);

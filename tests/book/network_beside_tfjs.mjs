// The forward passes of the race's two convolutions, ours and those of TensorFlow.js with WebAssembly, in turns under Node.
//
//   npm install --prefix FOLDER @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0
//   node tests/book/network_beside_tfjs.mjs FOLDER [batch] [rounds]
//
// Medians, in milliseconds of the clock and of the processor. Outside of CI: its WebAssembly has no gradient for the
// filters of a convolution, so that it could not train the race's networks.

import { createRequire } from "node:module";
import { pathToFileURL, fileURLToPath } from "node:url";

const [, , folder, batch = "32", rounds = "200"] = process.argv;
const require = createRequire(pathToFileURL(`${folder}/`));
const tf = require("@tensorflow/tfjs-core");
const wasm = require("@tensorflow/tfjs-backend-wasm");
wasm.setWasmPaths(`${folder}/node_modules/@tensorflow/tfjs-backend-wasm/dist/`);
await tf.setBackend("wasm");

const widgets = fileURLToPath(new URL("../../ndlib/bookwork/widgets/", import.meta.url));
const load = (name) => import(pathToFileURL(`${widgets}/${name}`));
const [network, { products }] = await Promise.all(["network.mjs", "products-wasm.mjs"].map(load));
const engine = await network.vectorEngine(products);

const count = Number(batch);
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
const numbers = (length, seed) => Float32Array.from({ length }, (_, i) => Math.sin(seed + 12.9898 * (i + 1)));
const measured = (act) => {
  const [processor, clock] = [process.cpuUsage(), performance.now()];
  act();
  const wall = performance.now() - clock;
  const { user, system } = process.cpuUsage(processor);
  return [wall, (user + system) / 1000];
};

console.log(`batch ${count}, 3 x 3, n = ${rounds}: milliseconds of the clock (of the processor)`);
for (const [inputs, outputs, side] of [[1, 8, 28], [8, 16, 14]]) {
  const layer = network.convolution(engine, { inputs, outputs, size: 3, height: side, width: side });
  const weights = numbers(layer.weight.value.length, 1);
  layer.weight.value.set(weights);
  layer.bias.value.fill(0);
  const x = engine.take(count * inputs * side * side);
  const pixels = numbers(x.length, 2);
  x.set(pixels);
  // Ours are channels first, theirs last.
  const theirs = tf.transpose(tf.tensor(pixels, [count, inputs, side, side]), [0, 2, 3, 1]);
  const filter = tf.transpose(tf.tensor(weights, [outputs, inputs, 3, 3]), [2, 3, 1, 0]);
  let [ours, other] = [null, null];
  const ourTimes = [];
  const otherTimes = [];
  for (let round = 0; round < Number(rounds) + 20; round++) {
    const mark = engine.mark();
    const a = measured(() => (ours = network.evaluate(engine, [layer], x)));
    const b = measured(() => {
      other?.dispose();
      other = tf.conv2d(theirs, filter, 1, "same");
      other.dataSync();
    });
    engine.release(mark); // what is in `ours` stays until more is taken
    if (round >= 20) (ourTimes.push(a), otherTimes.push(b));
  }
  const wanted = tf.transpose(other, [0, 3, 1, 2]).dataSync();
  const difference = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - ours[i])), 0);
  if (!(difference < 1e-4)) throw new Error(`the results differ by ${difference}`);
  const text = (times) => [0, 1].map((k) => median(times.map((each) => each[k])).toFixed(3)).join(" (") + ")";
  console.log(`${inputs} -> ${outputs} channels, ${side} x ${side}:  ours ${text(ourTimes)}   TensorFlow.js ${text(otherTimes)}`);
}

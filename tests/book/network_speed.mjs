// Takes a training step of an arm for each line that comes in, [engine, method], and prints what it took.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , folder, batch] = process.argv;
const load = (name) => import(pathToFileURL(`${folder}/${name}`));
const [network, race, { products }] = await Promise.all(["network.mjs", "race.mjs", "products-wasm.mjs"].map(load));
const engines = { plain: network.plainEngine(), vector: await network.vectorEngine(products) };
const labels = Array.from({ length: Number(batch) }, (_, i) => i % 10);
const settings = { rate: 1e-3, momentum: 0.9, decay: 1e-3 };
const known = new Map();
let pictures = null;

for await (const line of createInterface({ input: process.stdin })) {
  if (pictures === null) {
    pictures = Float32Array.from(JSON.parse(line));
    continue;
  }
  const [engine, method] = [engines[JSON.parse(line)[0]], JSON.parse(line)[1]];
  if (!known.has(line)) {
    const x = engine.take(pictures.length);
    x.set(pictures);
    known.set(line, { layers: race.network(engine, { method, seed: 0 }), x });
  }
  const { layers, x } = known.get(line);
  const [processor, clock] = [process.cpuUsage(), performance.now()];
  network.trainingStep(engine, layers, x, labels, settings);
  const wall = performance.now() - clock;
  const { user, system } = process.cpuUsage(processor);
  console.log(JSON.stringify([(user + system) / 1000, wall]));
}

// The networks that learn on a page, and what is shown of them; digits, weights and batches are those of race.py.

import { SIDE } from "./digits.mjs";
import {
  convolution,
  evaluate,
  foldedInEvaluation,
  forward,
  inputWhiteness,
  linear,
  maxPooling,
  normalisation,
  relu,
  trainingStep,
} from "./network.mjs";

const [FIRST, SECOND] = [8, 16]; // channels

/** A function that gives the next number in [0, 1) of a seed (Mulberry32). */
export function randomNumbers(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A function that gives the pictures of the next batch: all in a random order, then in another, but for the rest. */
export function batches(seed, size, count) {
  const random = randomNumbers(2 * seed + 1);
  let [order, next] = [[], 0];
  return () => {
    if (next + size > order.length) {
      order = Array.from({ length: count }, (_, i) => i);
      for (let i = count - 1; i > 0; i--) {
        const j = Math.floor(random() * (i + 1));
        [order[i], order[j]] = [order[j], order[i]];
      }
      next = 0;
    }
    next += size;
    return order.slice(next - size, next);
  };
}

/**
 * The layers of an arm, "none", "bn" or "nd"; all arms of a seed begin with the same weights. Of deconvolution the
 * options can be given: blockSize, eps, steps, samplingStride, running; the published ones are the defaults.
 */
export function network(engine, { method, options, seed }) {
  const white = (blockSize) =>
    method === "nd" ? { whitening: { ...published(blockSize), ...options } } : {};
  const block = (inputs, outputs, side) => [
    convolution(engine, { inputs, outputs, size: 3, height: side, width: side, ...white(64) }),
    ...(method === "bn" ? [normalisation(engine, { channels: outputs, pixels: side * side })] : []),
    maxPooling(engine, { height: side, width: side }),
    relu(),
  ];
  const head = linear(engine, { inputs: SECOND * (SIDE / 4) ** 2, outputs: 10, ...white(512) });
  const layers = [...block(1, FIRST, SIDE), ...block(FIRST, SECOND, SIDE / 2), head];
  const random = randomNumbers(2 * seed);
  for (const { weight, bias, columns } of layers) {
    if (!columns) continue;
    const bound = 1 / Math.sqrt(columns.channels * columns.taps);
    for (const { value } of [weight, bias]) value.forEach((_, i) => (value[i] = (2 * random() - 1) * bound));
  }
  return layers;
}

const published = (blockSize) => ({ blockSize, eps: 1e-5, steps: 5, samplingStride: 3, running: "root" });

/**
 * An arm at the start: `step()` takes a training step and returns its loss, `report()` tells what the network is like.
 *
 * Digits: pictures as numbers and their labels, the first `trained` of them to train on and the others held out.
 */
export function racer(engine, { images, labels, trained }, { batch, momentum, decay, rate, ...arm }) {
  const layers = network(engine, arm);
  const next = batches(arm.seed, batch, trained);
  const pixels = SIDE * SIDE;
  const settings = { rate, momentum, decay };
  const x = engine.take(batch * pixels);
  return {
    settings,
    step() {
      const chosen = next();
      chosen.forEach((picture, i) => x.set(images.subarray(picture * pixels, (picture + 1) * pixels), i * pixels));
      return trainingStep(engine, layers, x, Uint8Array.from(chosen, (picture) => labels[picture]), settings);
    },
    report() {
      const mark = engine.mark();
      const [held, truth] = [images.subarray(trained * pixels), labels.subarray(trained)];
      const shown = look(engine, layers, held, truth);
      engine.release(mark);
      return shown;
    },
  };
}

const AT_A_TIME = 50;

// Accuracy in percent, what each held-out digit is taken for and how sure the network is, kernels of the first layer and
// whiteness of the input of all layers that have weights, of the first pictures.
function look(engine, layers, held, truth) {
  const predicted = new Uint8Array(truth.length);
  const confidence = new Float32Array(truth.length);
  const pixels = SIDE * SIDE;
  for (let start = 0; start < truth.length; start += AT_A_TIME) {
    const mark = engine.mark();
    const logits = evaluate(engine, layers, taken(engine, held.subarray(start * pixels, (start + AT_A_TIME) * pixels)));
    for (let row = 0; row < logits.length / 10; row++) {
      const scores = logits.subarray(row * 10, row * 10 + 10);
      const best = scores.reduce((at, score, i) => (score > scores[at] ? i : at), 0);
      predicted[start + row] = best;
      confidence[start + row] = 1 / scores.reduce((sum, score) => sum + Math.exp(score - scores[best]), 0);
    }
    engine.release(mark);
  }
  const right = predicted.reduce((sum, label, i) => sum + (label === truth[i] ? 1 : 0), 0);

  let x = taken(engine, held.subarray(0, AT_A_TIME * pixels));
  const white = [];
  for (const layer of layers) {
    if (layer.columns) white.push(inputWhiteness(engine, layer, x, published(layer.kind === "linear" ? 512 : 64)));
    x = forward(engine, layer, x, false).y;
  }
  const weights = layers[0].weight.value.slice();
  const folded = layers[0].whitening ? foldedInEvaluation(engine, layers[0]).weight.slice() : null;
  return { accuracy: (100 * right) / truth.length, predicted, confidence, weights, folded, whiteness: white };
}

// Engines multiply what is in their own memory.
function taken(engine, values) {
  const array = engine.take(values.length);
  array.set(values);
  return array;
}

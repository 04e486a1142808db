// Gradient descent for least squares with two weights, on inputs as they are and on deconvolved ones.

import { principal } from "./pairs.mjs";

export const STEPS = 60; // that are drawn
export const SAMPLES = 200; // rows of X
export const BEST = [1, 1]; // the weights that made the targets, where the loss is zero
const PATIENCE = 1e6; // steps after which nobody waits any longer

/** X as pairs, its columns centred, with variances 1 and scale^2 and exactly this correlation. */
export function inputs(correlation, scale) {
  const rest = Math.sqrt(1 - correlation ** 2);
  return whitePairs().map(([a, b]) => [a, scale * (correlation * a + rest * b)]);
}

let white; // the same at every call

// Normal numbers (Box and Muller, from a generator of Park and Miller), whitened so that their covariance is I.
function whitePairs() {
  if (white) return white;
  let seed = 11;
  const uniform = () => (seed = (16807 * seed) % 2147483647) / 2147483647;
  const drawn = Array.from({ length: SAMPLES }, () => {
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
  const mean = (f) => drawn.reduce((sum, pair) => sum + f(pair), 0) / SAMPLES;
  const [m, n] = [mean(([a]) => a), mean(([, b]) => b)];
  const root = inverseRoot([mean(([a]) => (a - m) ** 2), mean(([a, b]) => (a - m) * (b - n)), mean(([, b]) => (b - n) ** 2)]);
  white = drawn.map(([a, b]) => times(root, [a - m, b - n]));
  return white;
}

/** Covariance of the inputs as (variance, covariance, variance): with centred columns it is X'X / N. */
export function covarianceOf(correlation, scale) {
  return [1, correlation * scale, scale * scale];
}

/** A symmetric matrix (a, b, c) times a vector. */
export function times([a, b, c], [x, y]) {
  return [a * x + b * y, b * x + c * y];
}

/** Cov^(-1/2), exact, as (a, b, c). */
export function inverseRoot(covariance) {
  const { values, vectors } = principal(covariance);
  const entry = (i, j) => vectors.reduce((sum, v, k) => sum + (v[i] * v[j]) / Math.sqrt(values[k]), 0);
  return [entry(0, 0), entry(0, 1), entry(1, 1)];
}

/** (1/2N) |Xw - y|^2, which is half the distance to the best weights, measured with the covariance. */
export function loss(covariance, [w1, w2]) {
  const off = [w1 - BEST[0], w2 - BEST[1]];
  const pull = times(covariance, off);
  return (off[0] * pull[0] + off[1] * pull[1]) / 2;
}

/** Weights after 0, 1, ..., STEPS steps on the inputs as they are: w <- w - rate X'(Xw - y) / N. */
export function plainPath(covariance, rate, start) {
  return walk(start, (w) => {
    const gradient = times(covariance, [w[0] - BEST[0], w[1] - BEST[1]]);
    return [w[0] - rate * gradient[0], w[1] - rate * gradient[1]];
  });
}

/**
 * The same on inputs X D, D = Cov^(-1/2), for weights u from the same function of the inputs, w = D u; the path is given
 * as the w that it stands for.
 */
export function deconvolvedPath(covariance, rate, start) {
  const d = inverseRoot(covariance);
  const inverse = product(covariance, d); // Cov D = Cov^(1/2) = D^-1
  const best = times(inverse, BEST);
  const step = (u) => {
    const gradient = times(d, times(covariance, times(d, [u[0] - best[0], u[1] - best[1]])));
    return [u[0] - rate * gradient[0], u[1] - rate * gradient[1]];
  };
  return walk(times(inverse, start), step).map((u) => times(d, u));
}

// The product of two symmetric matrices that have their eigenvectors in common, which is symmetric.
function product(p, [a, b, c]) {
  const [first, second] = [times(p, [a, b]), times(p, [b, c])];
  return [first[0], (first[1] + second[0]) / 2, second[1]];
}

function walk(start, step) {
  const path = [start];
  while (path.length <= STEPS) path.push(step(path.at(-1)));
  return path;
}

/** The condition number, the rate beyond which plain gradient descent diverges, and its best one. */
export function rates(covariance) {
  const { values } = principal(covariance);
  return { largest: 2 / values[0], best: 2 / (values[0] + values[1]), condition: values[0] / values[1] };
}

/**
 * Steps until the loss is a hundredth of what it was. In the eigenvectors of the covariance it is a sum of terms, each of
 * which shrinks by (1 - rate lambda)^2 a step. Infinity if it does not get there.
 */
export function stepsToHundredth(covariance, rate, start) {
  const { values, vectors } = principal(covariance);
  const terms = vectors.map(([x, y], k) => values[k] * (x * (start[0] - BEST[0]) + y * (start[1] - BEST[1])) ** 2);
  return patience(terms, values.map((value) => (1 - rate * value) ** 2));
}

/** The same with deconvolved inputs, whose covariance has no other eigenvalue than 1. */
export function deconvolvedStepsToHundredth(rate) {
  return patience([1], [(1 - rate) ** 2]);
}

// The first step at which the sum of the terms has come down to a hundredth, by halving an interval.
function patience(terms, factors) {
  const total = terms.reduce((sum, term) => sum + term, 0);
  if (total === 0) return 0;
  const there = (steps) => terms.reduce((sum, term, k) => sum + term * factors[k] ** steps, 0) <= total / 100;
  if (factors.some((factor, k) => factor >= 1 && terms[k] > 1e-20 * total) || !there(PATIENCE)) return Infinity;
  let [low, high] = [0, PATIENCE];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (there(middle)) high = middle;
    else low = middle;
  }
  return high;
}

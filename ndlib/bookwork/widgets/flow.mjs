// A picture on its way through a deconvolution layer: X, its covariance, the spectrum of that, D, w and Dw, and the output.

import { newtonSchulzResponse, norm, symmetricEigen } from "./linalg.mjs";
import { blurAndRestore, noiseField, spectrum, transferLine } from "./fourier.mjs";
import { moments, patchMatrix, product, weightsOf } from "./patches.mjs";

export const SIDE = 64; // pixels of the picture

/** The picture blurred by a Gaussian of so many pixels, 0 for none, and with noise of this standard deviation. */
export function disturbed(pixels, blur, noise) {
  if (blur === 0 && noise === 0) return Float64Array.from(pixels);
  const line = blur === 0 ? new Float64Array(SIDE).fill(1) : transferLine(blur, SIDE);
  return blurAndRestore(spectrum(pixels, SIDE), spectrum(noiseField(SIDE * SIDE), SIDE), line, noise, 1).blurred;
}

/** X, its mean and covariance, and the directions of that, the strongest first: what no eps and no steps change. */
export function statisticsOf(pixels, k) {
  const n = k * k;
  const matrix = patchMatrix(pixels, SIDE, k);
  const found = moments(matrix, n);
  const { values, vectors } = symmetricEigen(found.covariance, n);
  const order = Array.from({ length: n }, (_, e) => n - 1 - e); // the eigenvalues come in rising order
  const directions = order.map((e) => vectors.slice(e * n, e * n + n));
  return { k, n, matrix, ...found, variances: Float64Array.from(order, (e) => Math.max(values[e], 0)), directions };
}

/** D from the directions, by so many Newton-Schulz steps, or exactly where `steps` is null; then Dw and y = (X - mean)Dw. */
export function flow(statistics, { steps, eps, w }) {
  const { k, n, centred, variances, directions } = statistics;
  const shifted = variances.map((variance) => variance + eps);
  const gains = steps === null ? shifted.map((value) => value ** -0.5) : newtonSchulzResponse(shifted, steps, norm(shifted));
  const root = new Float64Array(n * n);
  directions.forEach((v, e) => {
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) root[i * n + j] += gains[e] * v[i] * v[j];
    }
  });
  const weights = weightsOf(w, k);
  const folded = product(root, weights);
  return { ...statistics, eps, steps, gains, root, weights, folded, y: product(centred, folded) };
}

/** How alike two pictures are: their correlation, 0 where one of them does not vary. */
export function likeness(a, b) {
  const [left, right] = [a, b].map((values) => {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return values.map((value) => value - mean);
  });
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  const size = Math.sqrt(dot(left, left) * dot(right, right));
  return size === 0 ? 0 : dot(left, right) / size;
}

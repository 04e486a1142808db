// The patches of a picture as the rows of a matrix, and what whitens them, as in ndlib.functional.

import { symmetricEigen } from "./linalg.mjs";

/** One row for each position of a window of k x k pixels, one column for each pixel of it; both in reading order. */
export function patchMatrix(pixels, width, k) {
  const [columns, rows] = [width - k + 1, pixels.length / width - k + 1];
  const matrix = new Float64Array(columns * rows * k * k);
  let next = 0;
  for (let top = 0; top < rows; top++) {
    for (let left = 0; left < columns; left++) {
      for (let y = top; y < top + k; y++) {
        for (let x = left; x < left + k; x++) matrix[next++] = pixels[y * width + x];
      }
    }
  }
  return matrix;
}

/** Mean row, covariance of the n columns, and the rows less the mean. */
export function moments(matrix, n) {
  const rows = matrix.length / n;
  const mean = new Float64Array(n);
  matrix.forEach((value, i) => (mean[i % n] += value / rows));
  const centred = matrix.map((value, i) => value - mean[i % n]);
  const covariance = new Float64Array(n * n);
  for (let row = 0; row < centred.length; row += n) {
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) covariance[i * n + j] += (centred[row + i] * centred[row + j]) / rows;
    }
  }
  return { mean, covariance, centred };
}

/** (Cov + eps I)^(-1/2) by its eigenvectors. */
export function inverseRoot(covariance, n, eps) {
  const { values, vectors } = symmetricEigen(covariance.map((value, i) => (i % (n + 1) === 0 ? value + eps : value)), n);
  const root = new Float64Array(n * n);
  for (let k = 0; k < n; k++) {
    const v = vectors.subarray(k * n, k * n + n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) root[i * n + j] += (v[i] * v[j]) / Math.sqrt(values[k]);
    }
  }
  return root;
}

/** Weights for the k x k pixels of a window: its middle alone, the mean, the step from left to right, or a column of D. */
export function weightsOf(kind, k, root) {
  const n = k * k;
  if (kind === "middle") return Float64Array.from({ length: n }, (_, i) => (i === Math.floor(n / 2) ? 1 : 0));
  if (kind === "mean") return new Float64Array(n).fill(1 / n);
  if (kind === "D") return Float64Array.from({ length: n }, (_, i) => root[i * n + Math.floor(n / 2)]);
  const places = Float64Array.from({ length: n }, (_, i) => (i % k) - (k - 1) / 2);
  const total = places.reduce((sum, place) => sum + Math.abs(place), 0);
  return places.map((place) => place / total);
}

/** y = Xw, one number for each row. */
export function product(matrix, weights) {
  const n = weights.length;
  return Float64Array.from({ length: matrix.length / n }, (_, row) => weights.reduce((sum, weight, i) => sum + weight * matrix[row * n + i], 0));
}

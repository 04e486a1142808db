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

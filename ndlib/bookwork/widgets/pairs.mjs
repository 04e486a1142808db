// Pairs of pixels of one photograph, their covariance, and three ways to make the two uncorrelated.

export const FARTHEST = 16; // pixels
export const EPS = 1e-5; // added to the variances before a root is taken, as the layer does
export const DRAWN = 1000; // pairs of the cloud; the statistics take all
const STRIDE = 5003; // a prime: no pair is drawn twice

/** The step from a pixel to its neighbour, [across, down]. */
export function offsetOf(distance, direction) {
  return [direction === "down" ? 0 : distance, direction === "right" ? 0 : distance];
}

/** Means and covariance of all pairs (a, b, c: variance, covariance, variance); the first pixels are always the same. */
export function pairMoments(pixels, width, [across, down]) {
  const height = pixels.length / width;
  const [columns, rows] = [width - FARTHEST, height - FARTHEST];
  let [m, n, a, b, c] = [0, 0, 0, 0, 0];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const first = pixels[y * width + x];
      const second = pixels[(y + down) * width + x + across];
      m += first;
      n += second;
      a += first * first;
      b += first * second;
      c += second * second;
    }
  }
  [m, n, a, b, c] = [m, n, a, b, c].map((sum) => sum / (columns * rows));
  return { means: [m, n], covariance: [a - m * m, b - m * n, c - n * n] };
}

/** The pairs that are drawn, less their means. */
export function drawnPairs(pixels, width, [across, down], means) {
  const [columns, rows] = [width - FARTHEST, pixels.length / width - FARTHEST];
  return Array.from({ length: DRAWN }, (_, i) => {
    const number = (i * STRIDE) % (columns * rows);
    const place = Math.floor(number / columns) * width + (number % columns);
    return [pixels[place] - means[0], pixels[place + down * width + across] - means[1]];
  });
}

/** Eigenvalues, the larger first, and eigenvectors of the covariance; the first vector points to the right. */
export function principal([a, b, c]) {
  const angle = Math.atan2(2 * b, a - c) / 2;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const half = Math.hypot((a - c) / 2, b);
  // The smaller one from the determinant, which loses no digits where the two pixels nearly agree.
  const large = (a + c) / 2 + half;
  return { values: [large, Math.max(0, (a * c - b * b) / large)], vectors: [[cos, sin], [-sin, cos]] };
}

/** The matrix W, row after row, by which a pair (a row) is multiplied: identity for "raw". */
export function whiteningMatrix(covariance, method) {
  if (method === "raw") return [1, 0, 0, 1];
  const [a, b, c] = [covariance[0] + EPS, covariance[1], covariance[2] + EPS];
  if (method === "cholesky") {
    const diagonal = Math.sqrt(a);
    const below = b / diagonal;
    const last = Math.sqrt(c - below * below);
    return [1 / diagonal, -below / (diagonal * last), 0, 1 / last];
  }
  const { values, vectors } = principal([a, b, c]);
  const [[p, q], [r, s]] = vectors.map((vector, i) => vector.map((part) => part / Math.sqrt(values[i])));
  if (method === "pca") return [p, r, q, s];
  const [[cos, sin], [minus, plus]] = vectors;
  return [p * cos + r * minus, p * sin + r * plus, q * cos + s * minus, q * sin + s * plus];
}

/** A pair (a row) times a matrix. */
export function times([x, y], [a, b, c, d]) {
  return [x * a + y * c, x * b + y * d];
}

/** W' Cov W as (variance, covariance, variance). */
export function covarianceAfter([a, b, c], w) {
  const [first, second] = [times([w[0], w[2]], [a, b, b, c]), times([w[1], w[3]], [a, b, b, c])];
  const dot = (v, i) => v[0] * w[i] + v[1] * w[2 + i];
  return [dot(first, 0), dot(first, 1), dot(second, 1)];
}

/** Correlation of the two numbers of a pair. */
export function correlationOf([a, b, c]) {
  return b / Math.sqrt(a * c);
}

/** Correlation of each number after W with the pixel that stood in its place. */
export function resemblance([a, b, c], w) {
  const [after, , last] = covarianceAfter([a, b, c], w);
  return [(a * w[0] + b * w[2]) / Math.sqrt(a * after), (b * w[1] + c * w[3]) / Math.sqrt(c * last)];
}

// Deconvolution kernels of pictures from their autocovariance, the same as ndlib.kernels.
//
// An autocovariance is a table of c(dy, dx), the covariance of a pixel with the one dy lower and dx further right, for
// lags up to `reach` on all sides: (2 reach + 1)^2 values, row after row. Between two colours a and b, a belongs to the
// first pixel, so that c_ba(d) = c_ab(-d).

import { newtonSchulzResponse, norm, symmetricEigen } from "./linalg.mjs";

/** The pairs of colours of which an autocovariance is kept; the others are these, turned around. */
export const PAIRS = [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]];

/**
 * Autocovariances of a picture: one for a grey one, in the order of PAIRS for one of three planes. It is the mean over
 * all pairs of pixels of the picture at this lag, of values less the mean of all pixels.
 */
export function autocovariance(planes, width, height, reach) {
  const centred = planes.map((plane) => {
    const mean = plane.reduce((sum, value) => sum + value, 0) / plane.length;
    return Float64Array.from(plane, (value) => value - mean);
  });
  const pairs = planes.length === 1 ? [[0, 0]] : PAIRS;
  return pairs.map(([a, b]) => {
    const side = 2 * reach + 1;
    const table = new Float64Array(side * side);
    for (let dy = a === b ? 0 : -reach; dy <= reach; dy++) {
      for (let dx = -reach; dx <= reach; dx++) {
        if (dy >= height || dx >= width || -dy >= height || -dx >= width) continue;
        const value = lagProduct(centred[a], centred[b], width, height, dy, dx);
        table[(dy + reach) * side + dx + reach] = value;
        if (a === b) table[(reach - dy) * side + reach - dx] = value;
      }
    }
    return table;
  });
}

function lagProduct(first, second, width, height, dy, dx) {
  const left = Math.max(0, -dx);
  const right = Math.min(width, width - dx);
  let sum = 0;
  for (let y = Math.max(0, -dy); y < Math.min(height, height - dy); y++) {
    const there = (y + dy) * width + dx;
    for (let x = left; x < right; x++) sum += first[y * width + x] * second[there + x];
  }
  return sum / ((width - Math.abs(dx)) * (height - Math.abs(dy)));
}

/** A table from the half that is stored where c(d) = c(-d): dy = 0 from dx = 0 on, then the whole rows below. */
export function unfolded(half, reach) {
  const side = 2 * reach + 1;
  const middle = (side * side - 1) / 2;
  const table = new Float64Array(side * side);
  for (let i = 0; i <= middle; i++) table[middle + i] = table[middle - i] = half[i];
  return table;
}

/** c(dy, dx) of two colours as a function, whichever way round the pair is kept. */
function lookup(tables, reach) {
  const side = 2 * reach + 1;
  const centre = reach * side + reach;
  return (a, b, dy, dx) => {
    const shift = dy * side + dx;
    if (tables.length === 1) return tables[0][centre + shift];
    const pair = PAIRS.findIndex(([c, d]) => c === Math.min(a, b) && d === Math.max(a, b));
    return tables[pair][a <= b ? centre + shift : centre - shift];
  };
}

/**
 * Eigenvalues and eigenvectors from which the kernels of the centre pixel follow, whatever eps and steps.
 *
 * Of a grey picture only the half of the space that is even about the centre has a part in the kernel of the centre
 * pixel: the basis is that pixel, then (p + p') / sqrt(2) for each pair of opposite ones. That makes 113 directions of
 * 225, and an eighth of the work. `trace` and `square` are those of the whole covariance: the Newton-Schulz iteration
 * divides by its Frobenius norm. Colours have no such symmetry: there all 3 k^2 directions count.
 */
export function decompose(tables, reach, k) {
  const c = lookup(tables, reach);
  const size = tables.length === 1 ? k * k : 3 * k * k;
  let square = 0;
  for (const [a, b] of tables.length === 1 ? [[0, 0]] : PAIRS) {
    for (let dy = 1 - k; dy < k; dy++) {
      for (let dx = 1 - k; dx < k; dx++) {
        square += (a === b ? 1 : 2) * (k - Math.abs(dy)) * (k - Math.abs(dx)) * c(a, b, dy, dx) ** 2;
      }
    }
  }
  const colours = tables.length === 1 ? [0] : [0, 1, 2];
  const trace = colours.reduce((sum, a) => sum + k * k * c(a, a, 0, 0), 0);
  const matrix = tables.length === 1 ? evenCovariance(c, k) : covariance(c, k);
  const n = Math.sqrt(matrix.length);
  return { k, size, trace, square, colours: colours.length, ...symmetricEigen(matrix, n) };
}

// Covariance of all pixels and colours of a patch, colour by colour, in reading order: block Toeplitz.
function covariance(c, k) {
  const n = 3 * k * k;
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const [a, y, x] = [Math.floor(i / (k * k)), Math.floor((i % (k * k)) / k), i % k];
    for (let j = 0; j <= i; j++) {
      const [b, v, u] = [Math.floor(j / (k * k)), Math.floor((j % (k * k)) / k), j % k];
      matrix[i * n + j] = matrix[j * n + i] = c(a, b, v - y, u - x);
    }
  }
  return matrix;
}

function evenCovariance(c, k) {
  const n = (k * k + 1) / 2;
  const places = Array.from({ length: n }, (_, i) => place(i, k));
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const [y, x] = places[i];
    for (let j = 0; j <= i; j++) {
      const [v, u] = places[j];
      const both = c(0, 0, v - y, u - x) + c(0, 0, v + y, u + x);
      matrix[i * n + j] = matrix[j * n + i] = both / (i === 0 ? 2 : j === 0 ? Math.SQRT2 : 1);
    }
  }
  return matrix;
}

// The i-th pixel from the centre on, in reading order: its distance from the centre down and to the right.
function place(i, k) {
  const index = (k * k - 1) / 2 + i;
  return [Math.floor(index / k) - (k - 1) / 2, (index % k) - (k - 1) / 2];
}

/**
 * Gains for the eigenvalues of a decomposition: of so many Newton-Schulz steps, or exact if `steps` is null. An
 * autocovariance that is estimated from one picture can have eigenvalues a little below 0, which count as 0.
 */
export function gainsOf({ values, size, trace, square }, steps, eps) {
  const shifted = values.map((value) => Math.max(value, 0) + eps);
  if (steps === null) return shifted.map((value) => 1 / Math.sqrt(value));
  return newtonSchulzResponse(shifted, steps, Math.sqrt(square + 2 * eps * trace + size * eps * eps));
}

/**
 * The kernels whose sum of filtered colours is the whitened colour `output` of the centre pixel: an array of k^2
 * values for each input colour, one for a grey picture. This is row `centre` of V diag(gains) V'.
 */
export function kernelsOf({ k, colours, values, vectors }, gains, output) {
  const n = values.length;
  const centre = (k * k - 1) / 2;
  const from = colours === 1 ? 0 : output * k * k + centre;
  const row = new Float64Array(n);
  for (let e = 0; e < n; e++) {
    const weight = gains[e] * vectors[e * n + from];
    for (let j = 0; j < n; j++) row[j] += weight * vectors[e * n + j];
  }
  if (colours === 3) return [0, 1, 2].map((a) => row.slice(a * k * k, (a + 1) * k * k));
  const kernel = new Float64Array(k * k);
  kernel[centre] = row[0];
  for (let j = 1; j < n; j++) kernel[centre + j] = kernel[centre - j] = row[j] / Math.SQRT2;
  return [kernel];
}

/** Least weight over the weight of the centre, of the kernel from a colour to itself: -0.3 is a strong surround. */
export function surround(kernel) {
  return kernel.reduce((least, weight) => Math.min(least, weight), Infinity) / kernel[(kernel.length - 1) / 2];
}

// Taps of a filter that are applied in one pass over a row.
const TAPS = 5;

/** A plane less its mean with `margin` more pixels on each side, mirrored at the border. */
export function mirrored(plane, width, height, margin) {
  const mean = plane.reduce((sum, value) => sum + value, 0) / plane.length;
  const wide = width + 2 * margin;
  const pixels = new Float64Array(wide * (height + 2 * margin) + TAPS);
  const fold = (i, length) => {
    const period = 2 * length - 2;
    const j = ((i % period) + period) % period;
    return j < length ? j : period - j;
  };
  for (let y = 0; y < height + 2 * margin; y++) {
    const row = fold(y - margin, height) * width;
    for (let x = 0; x < wide; x++) pixels[y * wide + x] = plane[row + fold(x - margin, width)] - mean;
  }
  return { pixels, width, height, wide, margin };
}

/**
 * The sum of planes, as `mirrored` gives them, each filtered with its kernel of k x k weights, unturned as a network's
 * convolution is. Five weights at a time slide over a row, their pixels kept in variables: three times as fast as one.
 */
export function filtered(planes, kernels, k) {
  const { width, height, wide, margin } = planes[0];
  const sum = new Float64Array(width * height);
  planes.forEach(({ pixels }, plane) => {
    for (let row = 0; row < k; row++) {
      for (let column = 0; column < k; column += TAPS) {
        const weight = (tap) => (column + tap < k ? kernels[plane][row * k + column + tap] : 0);
        const [w0, w1, w2, w3, w4] = [weight(0), weight(1), weight(2), weight(3), weight(4)];
        const corner = (margin - (k - 1) / 2 + row) * wide + margin - (k - 1) / 2 + column;
        for (let y = 0; y < height; y++) {
          let next = corner + y * wide;
          let p0 = pixels[next++];
          let p1 = pixels[next++];
          let p2 = pixels[next++];
          let p3 = pixels[next++];
          const end = (y + 1) * width;
          for (let to = y * width; to < end; to++) {
            const p4 = pixels[next++];
            sum[to] += w0 * p0 + w1 * p1 + w2 * p2 + w3 * p3 + w4 * p4;
            p0 = p1;
            p1 = p2;
            p2 = p3;
            p3 = p4;
          }
        }
      }
    }
  });
  return sum;
}

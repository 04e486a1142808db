// Small convolutional networks that learn: forward and backward passes, equal to torch's and ndlib's.
//
// Numbers are Float32Array, row after row; a batch of N pictures has the shape N x channels x height x width. A layer
// is an object with its settings and parameters; what it does is a pair of functions:
//
//     forward(engine, layer, x, training)      -> { y, ... }   the output, and what the backward pass needs
//     backward(engine, layer, kept, dy, more)  -> dx           derivatives of the loss by output and by input; those by
//                                                              the parameters go to `gradient`. more: is dx needed?
//
// An engine has memory, and the two products that nearly all of the time goes into, in JavaScript or WebAssembly.

// Engines. ----------------------------------------------------------------------------------------------------------

/** An engine in plain JavaScript. */
export function plainEngine(megabytes = 64) {
  return { ...memoryOf(new ArrayBuffer(megabytes * 2 ** 20)), multiply, rowProducts };
}

/** An engine from the bytes of products.ts, or null where there is no WebAssembly with vectors. */
export async function vectorEngine(bytes, megabytes = 64) {
  try {
    const memory = new WebAssembly.Memory({ initial: megabytes * 16 }); // pages of 64 kB
    const { instance } = await WebAssembly.instantiate(bytes, { env: { memory } });
    const products = instance.exports;
    const at = (array) => array.byteOffset;
    return {
      ...memoryOf(memory.buffer),
      multiply: (c, a, b, rows, m, k, n) => products.multiply(at(c), at(a), at(b), at(rows), m, k, n),
      rowProducts: (c, a, aRows, b, bRows, m, k, n) =>
        products.rowProducts(at(c), at(a), at(aRows), at(b), at(bRows), m, k, n),
    };
  } catch {
    return null;
  }
}

/**
 * Memory that is taken piece by piece and given back together: `release(mark)` gives back what was taken since `mark()`.
 * What is taken holds anything until it is written to.
 */
function memoryOf(buffer) {
  let used = 0;
  const take = (n, type = Float32Array) => {
    if (used + 4 * n > buffer.byteLength) throw new RangeError("network and batch do not fit into the memory");
    const array = new type(buffer, used, n);
    used += 16 * Math.ceil(n / 4);
    return array;
  };
  return { take, zeros: (n) => take(n).fill(0), mark: () => used, release: (mark) => (used = mark) };
}

/**
 * c = a b, with a of m x k and c of m x n. Row l of b begins at b[rows[l]] and has n numbers, so that a convolution needs
 * no matrix of patches: its rows are the padded picture itself, from another pixel on for every tap.
 */
function multiply(c, a, b, rows, m, k, n) {
  for (let i = 0; i < m; i += 4) {
    const [i0, i1, i2, i3] = fourFrom(i, m);
    const [a0, a1, a2, a3] = [i0 * k, i1 * k, i2 * k, i3 * k];
    for (let j = 0; j < n; j += 2) {
      const next = j + 1 < n ? 1 : 0;
      let [s0, s1, s2, s3, t0, t1, t2, t3] = [0, 0, 0, 0, 0, 0, 0, 0];
      for (let l = 0; l < k; l++) {
        const x = b[rows[l] + j];
        const y = b[rows[l] + j + next];
        s0 += a[a0 + l] * x;
        t0 += a[a0 + l] * y;
        s1 += a[a1 + l] * x;
        t1 += a[a1 + l] * y;
        s2 += a[a2 + l] * x;
        t2 += a[a2 + l] * y;
        s3 += a[a3 + l] * x;
        t3 += a[a3 + l] * y;
      }
      c[i0 * n + j] = s0;
      c[i0 * n + j + next] = t0;
      c[i1 * n + j] = s1;
      c[i1 * n + j + next] = t1;
      c[i2 * n + j] = s2;
      c[i2 * n + j + next] = t2;
      c[i3 * n + j] = s3;
      c[i3 * n + j + next] = t3;
    }
  }
}

/** c += a b', the inner products of the m rows of a with the k rows of b, which have n numbers and begin anywhere. */
function rowProducts(c, a, aRows, b, bRows, m, k, n) {
  for (let i = 0; i < m; i += 4) {
    const four = fourFrom(i, m);
    const [a0, a1, a2, a3] = [aRows[four[0]], aRows[four[1]], aRows[four[2]], aRows[four[3]]];
    for (let l = 0; l < k; l += 2) {
      const b0 = bRows[l];
      const b1 = bRows[Math.min(l + 1, k - 1)];
      let [s0, s1, s2, s3, t0, t1, t2, t3] = [0, 0, 0, 0, 0, 0, 0, 0];
      for (let j = 0; j < n; j++) {
        const x = b[b0 + j];
        const y = b[b1 + j];
        s0 += a[a0 + j] * x;
        t0 += a[a0 + j] * y;
        s1 += a[a1 + j] * x;
        t1 += a[a1 + j] * y;
        s2 += a[a2 + j] * x;
        t2 += a[a2 + j] * y;
        s3 += a[a3 + j] * x;
        t3 += a[a3 + j] * y;
      }
      const sums = [s0, t0, s1, t1, s2, t2, s3, t3];
      for (let row = 0; row < 4 && i + row < m; row++) {
        c[(i + row) * k + l] += sums[2 * row];
        if (l + 1 < k) c[(i + row) * k + l + 1] += sums[2 * row + 1];
      }
    }
  }
}

// Four rows at a time, and two columns, are as many sums as stay in registers. Where fewer are left the last row is taken
// more than once.
function fourFrom(i, rows) {
  return [i, Math.min(i + 1, rows - 1), Math.min(i + 2, rows - 1), Math.min(i + 3, rows - 1)];
}

// Where the rows of an ordinary matrix begin.
function rowsOf(engine, count, length) {
  const rows = engine.take(count, Int32Array);
  for (let i = 0; i < count; i++) rows[i] = i * length;
  return rows;
}

// a b, with a of m x k and b of k x n.
function product(engine, a, b, m, k, n) {
  const c = engine.take(m * n);
  engine.multiply(c, a, b, rowsOf(engine, k, n), m, k, n);
  return c;
}

// a b', with a of m x n and b of k x n.
function productTransposed(engine, a, b, m, k, n) {
  const c = engine.zeros(m * k);
  engine.rowProducts(c, a, rowsOf(engine, m, n), b, rowsOf(engine, k, n), m, k, n);
  return c;
}

function transposed(engine, a, rows, columns) {
  const b = engine.take(a.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) b[j * rows + i] = a[i * columns + j];
  return b;
}

// The inverse square root. ------------------------------------------------------------------------------------------

/**
 * D = (Cov + eps I)^(-1/2) of n x n by so many Newton-Schulz steps, ndlib's `inverse_sqrt`: with A = Cov + eps I, c its
 * Frobenius norm, Y = A / c and Z = I, repeat T = (3 I - Z Y) / 2, Y <- Y T, Z <- T Z; then D = Z / sqrt(c). All of them
 * are symmetric. Kept are Y, Z and T of every step.
 */
export function inverseRoot(engine, covariance, n, eps, steps) {
  const y = engine.take(n * n);
  y.set(covariance);
  for (let i = 0; i < n * n; i += n + 1) y[i] += eps;
  let square = 0;
  for (let i = 0; i < n * n; i++) square += y[i] * y[i];
  const norm = Math.sqrt(square);
  for (let i = 0; i < n * n; i++) y[i] /= norm;

  const [ys, zs, ts] = [[y], [null], []]; // Z = I is not multiplied with, nor is the last Y needed
  for (let step = 0; step < steps; step++) {
    const t = step === 0 ? engine.take(n * n) : product(engine, zs[step], ys[step], n, n, n);
    if (step === 0) t.set(y);
    for (let i = 0; i < n * n; i++) t[i] *= -0.5;
    for (let i = 0; i < n * n; i += n + 1) t[i] += 1.5;
    ts.push(t);
    if (step + 1 < steps) ys.push(product(engine, ys[step], t, n, n, n));
    zs.push(step === 0 ? t : product(engine, t, zs[step], n, n, n));
  }
  const root = engine.take(n * n);
  for (let i = 0; i < n * n; i++) root[i] = zs[steps][i] / Math.sqrt(norm);
  return { root, kept: { norm, ys, zs, ts } };
}

/** The loss's derivatives by the covariance from those by the root: the chain rule through every step and the norm. */
function inverseRootBackward(engine, { norm, ys, zs, ts }, dRoot, n) {
  const plus = (a, b, factor) => {
    for (let i = 0; i < n * n; i++) a[i] += factor * b[i];
    return a;
  };
  const times = (a, b) => product(engine, a, b, n, n, n);
  const inner = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const steps = ts.length;
  let dz = engine.take(n * n);
  for (let i = 0; i < n * n; i++) dz[i] = dRoot[i] / Math.sqrt(norm);
  let throughNorm = inner(dz, zs[steps]) / 2;
  let dy = engine.zeros(n * n);
  for (let step = steps - 1; step > 0; step--) {
    const [y, z, t] = [ys[step], zs[step], ts[step]];
    const dt = times(dz, z); // of Z <- T Z
    if (step < steps - 1) {
      plus(dt, times(y, dy), 1); // of Y <- Y T
      dy = times(dy, t);
    }
    plus(dy, times(z, dt), -0.5); // of T = (3 I - Z Y) / 2
    dz = plus(times(t, dz), times(dt, y), -0.5);
  }
  if (steps > 1) {
    plus(dz, times(ys[0], dy), 1); // in the first step dz is that of T
    dy = times(dy, ts[0]);
  }
  plus(dy, dz, -0.5);
  throughNorm += inner(dy, ys[0]);
  for (let i = 0; i < n * n; i++) dy[i] = (dy[i] - throughNorm * ys[0][i]) / norm;
  return dy;
}

// Deconvolution. ----------------------------------------------------------------------------------------------------

const MOMENTUM = 0.1; // weight of the newest batch in all running averages

/**
 * What makes a layer a deconvolution layer: how its columns (patches have channels x taps of them) are cut into blocks
 * of n, and its running averages. Column j is number `place[j]` of block `block[j]`.
 *
 * Options: `blockSize` and `eps`, `steps` of the root, `samplingStride` of the patches that are measured, and `running`:
 * "root" averages mean and D from (0, I), "covariance" mean and covariance without a start value.
 */
function whiteningOf(engine, { channels, taps, interleaved }, { blockSize, eps, steps, samplingStride, running }) {
  const together = blockSize >= channels ? channels : commonDivisor(blockSize, channels);
  const [n, blocks] = [together * taps, channels / together];
  const columns = Array.from({ length: n * blocks }, (_, j) => j);
  const mean = engine.zeros(n);
  const average = engine.zeros(n * n); // of the root, or of the covariance
  if (running === "root") for (let i = 0; i < n * n; i += n + 1) average[i] = 1;
  return {
    ...{ n, blocks, eps, steps, samplingStride, running, mean, average, batches: 0 },
    place: columns.map((j) => (interleaved ? Math.floor(j / blocks) : j % n)),
    block: columns.map((j) => (interleaved ? j % blocks : Math.floor(j / n))),
  };
}

function commonDivisor(a, b) {
  return b === 0 ? a : commonDivisor(b, a % b);
}

/**
 * Mean and covariance of S samples of n numbers, which come as n rows of S and are left without their mean:
 * mu = X 1 / S, Cov = (X - mu)(X - mu)' / S.
 */
export function moments(engine, samples, n) {
  const count = samples.length / n;
  const mean = engine.take(n);
  for (let i = 0; i < n; i++) {
    let sum = 0;
    for (let s = i * count; s < (i + 1) * count; s++) sum += samples[s];
    mean[i] = sum / count;
    for (let s = i * count; s < (i + 1) * count; s++) samples[s] -= mean[i];
  }
  const covariance = productTransposed(engine, samples, samples, n, n, count);
  for (let i = 0; i < n * n; i++) covariance[i] /= count;
  return { mean, covariance };
}

// dX = (G + G')(X - mu) / S + g 1' / S, for the mean's own variation drops out of the covariance's.
function momentsBackward(engine, centred, dMean, dCovariance, n) {
  const count = centred.length / n;
  const both = engine.take(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) both[i * n + j] = (dCovariance[i * n + j] + dCovariance[j * n + i]) / count;
  }
  const dSamples = product(engine, both, centred, n, n, count);
  for (let i = 0; i < n; i++) {
    for (let s = i * count; s < (i + 1) * count; s++) dSamples[s] += dMean[i] / count;
  }
  return dSamples;
}

/** Mean and root that whiten a layer's input in evaluation. */
export function runningWhitening(engine, { n, eps, steps, running, mean, average, batches }) {
  if (running === "root") return { mean, root: average };
  const root = engine.zeros(n * n);
  for (let i = 0; i < n * n; i += n + 1) root[i] = 1;
  if (batches === 0) return { mean, root };
  const weight = 1 - (1 - MOMENTUM) ** batches;
  const covariance = average.map((value) => value / weight);
  return { mean: mean.map((value) => value / weight), root: inverseRoot(engine, covariance, n, eps, steps).root };
}

// Mean and root of a batch, which enter the running averages.
function batchWhitening(engine, whitening, samples) {
  const { n, eps, steps, running } = whitening;
  const { mean, covariance } = moments(engine, samples, n);
  const { root, kept } = inverseRoot(engine, covariance, n, eps, steps);
  remember(whitening.mean, mean);
  remember(whitening.average, running === "root" ? root : covariance);
  whitening.batches++;
  return { mean, root, kept, centred: samples };
}

function remember(onto, values) {
  for (let i = 0; i < onto.length; i++) onto[i] += MOMENTUM * (values[i] - onto[i]);
}

// Filters cut into blocks as the patches are: outputs x blocks rows of n numbers.
function filterBlocks(engine, { n, blocks, place, block }, weight) {
  const rows = engine.take(weight.length);
  const columns = n * blocks;
  for (let o = 0; o < weight.length; o += columns) {
    for (let j = 0; j < columns; j++) rows[o + block[j] * n + place[j]] = weight[o + j];
  }
  return rows;
}

function joinBlocks({ n, blocks, place, block }, rows, weight) {
  const columns = n * blocks;
  for (let o = 0; o < weight.length; o += columns) {
    for (let j = 0; j < columns; j++) weight[o + j] = rows[o + block[j] * n + place[j]];
  }
  return weight;
}

/**
 * Weight and bias of the plain layer that whitens and filters in one: (x - mu) D w + b = x (D w) + (b - mu' D w).
 *
 * `samples()` gives the samples to measure, n rows of them. A layer that whitens nothing has its own weight and bias.
 */
function folded(engine, layer, samples, training) {
  const { whitening } = layer;
  const [weight, bias] = [layer.weight.value, layer.bias.value];
  if (!whitening) return { weight, bias };
  const white = training ? batchWhitening(engine, whitening, samples()) : runningWhitening(engine, whitening);
  const { n, blocks } = whitening;
  const rows = product(engine, filterBlocks(engine, whitening, weight), white.root, weight.length / n, n, n);
  const foldedBias = engine.take(bias.length);
  for (let o = 0; o < bias.length; o++) {
    let shift = 0;
    for (let i = 0; i < n * blocks; i++) shift += rows[o * n * blocks + i] * white.mean[i % n];
    foldedBias[o] = bias[o] - shift;
  }
  return { weight: joinBlocks(whitening, rows, engine.take(weight.length)), bias: foldedBias, rows, ...white };
}

// From the derivatives by weight and bias of the plain layer to those by the layer's own, and by the samples.
function foldedBackward(engine, layer, kept, dWeight, dBias) {
  const { whitening, weight, bias } = layer;
  const { n, blocks } = whitening;
  const count = weight.value.length / n;
  const dRows = filterBlocks(engine, whitening, dWeight);
  const dMean = engine.zeros(n);
  dRows.forEach((_, at) => {
    const d = dBias[Math.floor(at / (n * blocks))];
    dRows[at] -= d * kept.mean[at % n];
    dMean[at % n] -= d * kept.rows[at];
  });
  bias.gradient.set(dBias);
  joinBlocks(whitening, product(engine, dRows, kept.root, count, n, n), weight.gradient);
  const filters = transposed(engine, filterBlocks(engine, whitening, weight.value), count, n);
  const dRoot = product(engine, filters, dRows, n, count, n);
  const dCovariance = inverseRootBackward(engine, kept.kept, dRoot, n);
  return momentsBackward(engine, kept.centred, dMean, dCovariance, n);
}

/** ndlib's `whiteness` of a matrix: (tr A)^2 / (n tr A^2), 1 for a multiple of the identity and 1/n at the least. */
export function whiteness(matrix, n) {
  let trace = 0;
  for (let i = 0; i < n * n; i += n + 1) trace += matrix[i];
  return trace ** 2 / (n * matrix.reduce((sum, value) => sum + value * value, 0));
}

/**
 * Whiteness of the covariance of a layer's input, and of D Cov D with the root of its running averages, or null. A layer
 * that whitens nothing is measured with the given options.
 */
export function inputWhiteness(engine, layer, x, options) {
  const { whitening } = layer;
  const measured = { ...layer, whitening: whitening ?? whiteningOf(engine, layer.columns, options) };
  const { n } = measured.whitening;
  const samples =
    layer.kind === "linear"
      ? sampledFeatures(engine, measured, x)
      : sampledPatches(engine, measured, withBorder(engine, layer, x));
  const { covariance } = moments(engine, samples, n);
  const before = whiteness(covariance, n);
  if (!whitening) return { before, after: null };
  const { root } = runningWhitening(engine, whitening);
  const white = product(engine, product(engine, root, covariance, n, n, n), root, n, n, n);
  return { before, after: whiteness(white, n) };
}

/** Weight and bias of the plain layer that does in evaluation what this one does. */
export const foldedInEvaluation = (engine, layer) => folded(engine, layer, null, false);

// Layers. -----------------------------------------------------------------------------------------------------------

function parameter(engine, n) {
  return { value: engine.zeros(n), gradient: engine.zeros(n), velocity: engine.zeros(n) };
}

/**
 * y = w * x + b, `size` odd, with zeros around the picture so that y is as large as x. Weight: outputs x inputs x size x
 * size. With `whitening`, options of `whiteningOf`, it is ndlib's `DeconvConv2d` (of more than one tap).
 */
export function convolution(engine, { inputs, outputs, size, height, width, whitening }) {
  const border = (size - 1) / 2;
  const [row, plane] = [width + 2 * border, (width + 2 * border) * (height + 2 * border)];
  const taps = (channels) => {
    const rows = engine.take(channels * size * size, Int32Array);
    for (let l = 0; l < rows.length; l++) {
      const [channel, tap] = [Math.floor(l / (size * size)), l % (size * size)];
      rows[l] = channel * plane + Math.floor(tap / size) * row + (tap % size);
    }
    return rows;
  };
  const columns = { channels: inputs, taps: size * size, interleaved: true };
  return {
    ...{ kind: "convolution", inputs, outputs, size, height, width, columns },
    ...{ border, row, plane, inputTaps: taps(inputs), outputTaps: taps(outputs) },
    weight: parameter(engine, outputs * inputs * size * size),
    bias: parameter(engine, outputs),
    whitening: whitening && whiteningOf(engine, columns, whitening),
  };
}

/** y = w x + b, weight: outputs x inputs. With `whitening` it is ndlib's `DeconvLinear`. */
export function linear(engine, { inputs, outputs, whitening }) {
  const columns = { channels: inputs, taps: 1, interleaved: false };
  return {
    ...{ kind: "linear", inputs, outputs, columns },
    weight: parameter(engine, outputs * inputs),
    bias: parameter(engine, outputs),
    whitening: whitening && whiteningOf(engine, columns, whitening),
  };
}

/** Batch normalisation of maps with so many pixels: y = (x - mean) / sqrt(variance + 1e-5) * weight + bias. */
export function normalisation(engine, { channels, pixels }) {
  const [weight, bias] = [parameter(engine, channels), parameter(engine, channels)];
  weight.value.fill(1);
  const [mean, variance] = [engine.zeros(channels), engine.zeros(channels).fill(1)];
  return { kind: "normalisation", channels, pixels, weight, bias, mean, variance };
}

/** The largest, or the mean, of every 2 x 2 pixels; an odd last row or column is left out. */
export const maxPooling = (engine, { height, width }) => ({ kind: "maxPooling", height, width });
export const averagePooling = (engine, { height, width }) => ({ kind: "averagePooling", height, width });

/** max(x, 0). */
export const relu = () => ({ kind: "relu" });

// Convolution. The planes of a picture are kept with zeros around them. A row of a result is as long as a row of those,
// so that a whole plane is one row of a matrix product; the numbers at its right end are no pixels and are left out.

function withBorder(engine, { height, width, border, row, plane }, x) {
  const planes = x.length / (height * width);
  const padded = engine.zeros(planes * plane + 2 * border); // the last taps of the last row look beyond the plane
  for (let p = 0; p < planes; p++) {
    for (let i = 0; i < height; i++) {
      const from = (p * height + i) * width;
      const to = p * plane + (i + border) * row + border;
      for (let j = 0; j < width; j++) padded[to + j] = x[from + j];
    }
  }
  return padded;
}

// Planes of rows that are `row` long to planes that are `width` wide, plus a number for each plane.
function withoutEnds({ height, width, row }, wide, onto, start, bias) {
  for (let p = 0; p < wide.length / (height * row); p++) {
    const shift = bias === null ? 0 : bias[p];
    for (let i = 0; i < height; i++) {
      const from = (p * height + i) * row;
      const to = start + (p * height + i) * width;
      for (let j = 0; j < width; j++) onto[to + j] = wide[from + j] + shift;
    }
  }
}

// The planes of every picture multiplied with a matrix that has a row for each plane of the result.
function convolve(engine, layer, padded, taps, channels, weight, bias) {
  const { size, height, width, row, plane } = layer;
  const results = weight.length / (channels * size * size);
  const pictures = Math.floor(padded.length / (channels * plane));
  const y = engine.take(pictures * results * height * width);
  const wide = engine.take(results * height * row);
  for (let picture = 0; picture < pictures; picture++) {
    const planes = padded.subarray(picture * channels * plane);
    engine.multiply(wide, weight, planes, taps, results, channels * size * size, height * row);
    withoutEnds(layer, wide, y, picture * results * height * width, bias);
  }
  return y;
}

function convolutionForward(engine, layer, x, training) {
  const padded = withBorder(engine, layer, x);
  const whole = folded(engine, layer, () => sampledPatches(engine, layer, padded), training);
  const y = convolve(engine, layer, padded, layer.inputTaps, layer.inputs, whole.weight, whole.bias);
  return { y, padded, whole };
}

function convolutionBackward(engine, layer, { padded, whole }, dy, more) {
  const { inputs, outputs, size, height, width, border, row, plane, whitening } = layer;
  const columns = inputs * size * size;
  const pictures = dy.length / (outputs * height * width);
  const dPadded = withBorder(engine, layer, dy);
  const dWeight = whitening ? engine.take(outputs * columns) : layer.weight.gradient;
  const dBias = whitening ? engine.take(outputs) : layer.bias.gradient;
  dWeight.fill(0);
  dBias.fill(0);

  const planes = rowsOf(engine, outputs, plane);
  for (let picture = 0; picture < pictures; picture++) {
    const above = dPadded.subarray(picture * outputs * plane + border * row + border); // from its first pixel on
    const below = padded.subarray(picture * inputs * plane);
    engine.rowProducts(dWeight, above, planes, below, layer.inputTaps, outputs, columns, height * row);
    for (let o = 0; o < outputs; o++) {
      let sum = 0;
      for (let at = 0, from = o * plane; at < height * row; at++) sum += above[from + at];
      dBias[o] += sum;
    }
  }
  const dSamples = whitening && foldedBackward(engine, layer, whole, dWeight, dBias);
  if (!more) return null;

  const turned = engine.take(outputs * columns); // inputs x outputs x taps, the taps the other way round
  for (let o = 0; o < outputs; o++) {
    for (let l = 0; l < columns; l++) {
      const [channel, tap] = [Math.floor(l / (size * size)), l % (size * size)];
      turned[(channel * outputs + o + 1) * size * size - 1 - tap] = whole.weight[o * columns + l];
    }
  }
  const dx = convolve(engine, layer, dPadded, layer.outputTaps, outputs, turned, null);
  if (whitening) addPatches(engine, layer, dSamples, dx);
  return dx;
}

// Every samplingStride-th patch in both directions is measured, every block of it a sample. For each column of the
// patches and each row of pictures: where its numbers begin among the samples, which are n rows, and in the padded planes.
function eachSampled({ inputTaps, height, inputs, row, plane, whitening }, pictures, across, each) {
  const { n, blocks, place, block, samplingStride } = whitening;
  const down = Math.ceil(height / samplingStride);
  for (let j = 0; j < n * blocks; j++) {
    let sample = (place[j] * blocks + block[j]) * pictures * down * across;
    for (let picture = 0; picture < pictures; picture++) {
      const first = picture * inputs * plane + inputTaps[j];
      for (let i = 0; i < down; i++, sample += across) each(sample, first + i * samplingStride * row);
    }
  }
}

function sampledPatches(engine, layer, padded) {
  const { height, width, inputs, plane, whitening } = layer;
  const { n, blocks, samplingStride } = whitening;
  const pictures = Math.floor(padded.length / (inputs * plane));
  const across = Math.ceil(width / samplingStride);
  const samples = engine.take(n * blocks * pictures * Math.ceil(height / samplingStride) * across);
  eachSampled(layer, pictures, across, (to, from) => {
    for (let j = 0; j < across; j++) samples[to + j] = padded[from + j * samplingStride];
  });
  return samples;
}

// The other way: what the samples contribute is added to the pixels that they were copies of.
function addPatches(engine, layer, dSamples, dx) {
  const { inputs, height, width, border, row, plane, whitening } = layer;
  const pictures = dx.length / (inputs * height * width);
  const across = Math.ceil(width / whitening.samplingStride);
  const dPadded = engine.zeros(pictures * inputs * plane);
  eachSampled(layer, pictures, across, (from, to) => {
    for (let j = 0; j < across; j++) dPadded[to + j * whitening.samplingStride] += dSamples[from + j];
  });
  for (let at = 0; at < dx.length / width; at++) {
    const [p, i] = [Math.floor(at / height), at % height];
    const from = p * plane + (i + border) * row + border;
    for (let j = 0; j < width; j++) dx[at * width + j] += dPadded[from + j];
  }
}

// Linear.

function linearForward(engine, layer, x, training) {
  const { inputs, outputs } = layer;
  const pictures = x.length / inputs;
  const whole = folded(engine, layer, () => sampledFeatures(engine, layer, x), training);
  const y = productTransposed(engine, x, whole.weight, pictures, outputs, inputs);
  for (let i = 0; i < y.length; i++) y[i] += whole.bias[i % outputs];
  return { y, x, whole };
}

function linearBackward(engine, layer, { x, whole }, dy, more) {
  const { inputs, outputs, whitening } = layer;
  const pictures = x.length / inputs;
  const dWeight = product(engine, transposed(engine, dy, pictures, outputs), x, outputs, pictures, inputs);
  const dBias = engine.zeros(outputs);
  for (let i = 0; i < dy.length; i++) dBias[i % outputs] += dy[i];
  if (!whitening) {
    layer.weight.gradient.set(dWeight);
    layer.bias.gradient.set(dBias);
  }
  const dSamples = whitening && foldedBackward(engine, layer, whole, dWeight, dBias);
  if (!more) return null;
  const dx = product(engine, dy, whole.weight, pictures, outputs, inputs);
  if (whitening) addFeatures(layer, dSamples, dx);
  return dx;
}

// Every block of features of every row is a sample.
function sampledFeatures(engine, { inputs, whitening }, x) {
  const { blocks, place, block } = whitening;
  const pictures = x.length / inputs;
  const samples = engine.take(x.length);
  for (let j = 0; j < inputs; j++) {
    const to = (place[j] * blocks + block[j]) * pictures;
    for (let row = 0; row < pictures; row++) samples[to + row] = x[row * inputs + j];
  }
  return samples;
}

function addFeatures({ inputs, whitening }, dSamples, dx) {
  const { blocks, place, block } = whitening;
  const pictures = dx.length / inputs;
  for (let j = 0; j < inputs; j++) {
    const from = (place[j] * blocks + block[j]) * pictures;
    for (let row = 0; row < pictures; row++) dx[row * inputs + j] += dSamples[from + row];
  }
}

// Batch normalisation.

const SMALL = 1e-5;

function normalisationForward(engine, layer, x, training) {
  const { channels, pixels, weight, bias } = layer;
  const y = engine.take(x.length);
  const [means, scales] = [engine.take(channels), engine.take(channels)];
  for (let channel = 0; channel < channels; channel++) {
    const { mean, variance } = training ? channelMoments(layer, x, channel) : runningMoments(layer, channel);
    const scale = 1 / Math.sqrt(variance + SMALL);
    const factor = weight.value[channel] * scale;
    const shift = bias.value[channel] - mean * factor;
    for (let start = channel * pixels; start < x.length; start += channels * pixels) {
      for (let i = start; i < start + pixels; i++) y[i] = x[i] * factor + shift;
    }
    means[channel] = mean;
    scales[channel] = scale;
  }
  return { y, x, means, scales };
}

const runningMoments = (layer, channel) => ({ mean: layer.mean[channel], variance: layer.variance[channel] });

// Of a batch; they enter the running averages, the variance divided by the number of pixels less one.
function channelMoments(layer, x, channel) {
  const { channels, pixels } = layer;
  const count = x.length / channels;
  let sum = 0;
  for (let start = channel * pixels; start < x.length; start += channels * pixels) {
    for (let i = start; i < start + pixels; i++) sum += x[i];
  }
  const mean = sum / count;
  let square = 0;
  for (let start = channel * pixels; start < x.length; start += channels * pixels) {
    for (let i = start; i < start + pixels; i++) square += (x[i] - mean) * (x[i] - mean);
  }
  layer.mean[channel] += MOMENTUM * (mean - layer.mean[channel]);
  layer.variance[channel] += MOMENTUM * (square / (count - 1) - layer.variance[channel]);
  return { mean, variance: square / count };
}

// With z = (x - mean) scale: dx = weight scale (dy - (sum of dy) / N - z (sum of z dy) / N).
function normalisationBackward(engine, { channels, pixels, weight, bias }, { x, means, scales }, dy) {
  const dx = engine.take(x.length);
  const count = x.length / channels;
  for (let channel = 0; channel < channels; channel++) {
    const [mean, scale] = [means[channel], scales[channel]];
    let sum = 0;
    let along = 0;
    for (let start = channel * pixels; start < x.length; start += channels * pixels) {
      for (let i = start; i < start + pixels; i++) {
        sum += dy[i];
        along += dy[i] * (x[i] - mean);
      }
    }
    bias.gradient[channel] = sum;
    weight.gradient[channel] = along * scale;
    const factor = weight.value[channel] * scale;
    const [level, slope] = [sum / count, (along * scale * scale) / count];
    for (let start = channel * pixels; start < x.length; start += channels * pixels) {
      for (let i = start; i < start + pixels; i++) dx[i] = factor * (dy[i] - level - (x[i] - mean) * slope);
    }
  }
  return dx;
}

// Pooling and ReLU.

function maxPoolingForward(engine, { height, width }, x) {
  const [rows, columns] = [height >> 1, width >> 1];
  const planes = x.length / (height * width);
  const y = engine.take(planes * rows * columns);
  const from = engine.take(y.length, Int32Array);
  let next = 0;
  for (let plane = 0; plane < planes; plane++) {
    for (let i = 0; i < rows; i++) {
      let first = (plane * height + 2 * i) * width;
      for (let j = 0; j < columns; j++, first += 2) {
        let best = first;
        if (x[first + 1] > x[best]) best = first + 1;
        if (x[first + width] > x[best]) best = first + width;
        if (x[first + width + 1] > x[best]) best = first + width + 1;
        from[next] = best;
        y[next++] = x[best];
      }
    }
  }
  return { y, from, length: x.length };
}

function maxPoolingBackward(engine, layer, { from, length }, dy) {
  const dx = engine.zeros(length);
  for (let i = 0; i < dy.length; i++) dx[from[i]] = dy[i];
  return dx;
}

function averagePoolingForward(engine, { height, width }, x) {
  const [rows, columns] = [height >> 1, width >> 1];
  const planes = x.length / (height * width);
  const y = engine.take(planes * rows * columns);
  for (let next = 0; next < y.length; next++) {
    const [line, j] = [Math.floor(next / columns), next % columns];
    const first = (Math.floor(line / rows) * height + 2 * (line % rows)) * width + 2 * j;
    y[next] = (x[first] + x[first + 1] + x[first + width] + x[first + width + 1]) / 4;
  }
  return { y, length: x.length };
}

function averagePoolingBackward(engine, { height, width }, { length }, dy) {
  const [rows, columns] = [height >> 1, width >> 1];
  const dx = engine.zeros(length);
  for (let next = 0; next < dy.length; next++) {
    const [line, j] = [Math.floor(next / columns), next % columns];
    const first = (Math.floor(line / rows) * height + 2 * (line % rows)) * width + 2 * j;
    dx[first] = dx[first + 1] = dx[first + width] = dx[first + width + 1] = dy[next] / 4;
  }
  return dx;
}

function reluForward(engine, layer, x) {
  const y = engine.take(x.length);
  for (let i = 0; i < x.length; i++) y[i] = x[i] > 0 ? x[i] : 0;
  return { y };
}

function reluBackward(engine, layer, { y }, dy) {
  const dx = engine.take(dy.length);
  for (let i = 0; i < dy.length; i++) dx[i] = y[i] > 0 ? dy[i] : 0;
  return dx;
}

const PASSES = {
  convolution: [convolutionForward, convolutionBackward],
  linear: [linearForward, linearBackward],
  normalisation: [normalisationForward, normalisationBackward],
  maxPooling: [maxPoolingForward, maxPoolingBackward],
  averagePooling: [averagePoolingForward, averagePoolingBackward],
  relu: [reluForward, reluBackward],
};

export const forward = (engine, layer, x, training) => PASSES[layer.kind][0](engine, layer, x, training);
export const backward = (engine, layer, kept, dy, more) => PASSES[layer.kind][1](engine, layer, kept, dy, more);

// Networks. ---------------------------------------------------------------------------------------------------------

/** The parameters of a network, a list of layers: weight, then bias of each layer that has them. */
export function parameters(layers) {
  return layers.flatMap(({ weight, bias }) => (weight ? [weight, bias] : []));
}

/** The output of a network in evaluation. */
export function evaluate(engine, layers, x) {
  return layers.reduce((input, layer) => forward(engine, layer, input, false).y, x);
}

/** The mean over a batch of -log softmax(logits)[label], and its derivatives by the logits. */
export function crossEntropy(engine, logits, labels) {
  const classes = logits.length / labels.length;
  const d = engine.take(logits.length);
  let loss = 0;
  labels.forEach((label, row) => {
    const scores = logits.subarray(row * classes, (row + 1) * classes);
    const largest = Math.max(...scores);
    const sum = scores.reduce((total, score) => total + Math.exp(score - largest), 0);
    loss += (Math.log(sum) + largest - scores[label]) / labels.length;
    scores.forEach((score, i) => {
      d[row * classes + i] = (Math.exp(score - largest) / sum - (i === label ? 1 : 0)) / labels.length;
    });
  });
  return { loss, d };
}

/** Loss of a batch and, in the layers, the derivatives by all parameters. */
export function gradients(engine, layers, x, labels) {
  const kept = [];
  let y = x;
  for (const layer of layers) {
    kept.push(forward(engine, layer, y, true));
    y = kept.at(-1).y;
  }
  let { loss, d } = crossEntropy(engine, y, labels);
  for (let i = layers.length - 1; i >= 0; i--) d = backward(engine, layers[i], kept[i], d, i > 0);
  return loss;
}

/** One step of stochastic gradient descent, as torch.optim.SGD takes it; returns the loss before it. */
export function trainingStep(engine, layers, x, labels, { rate, momentum, decay }) {
  const mark = engine.mark();
  const loss = gradients(engine, layers, x, labels);
  engine.release(mark);
  for (const { value, gradient, velocity } of parameters(layers)) {
    for (let i = 0; i < value.length; i++) {
      velocity[i] = momentum * velocity[i] + gradient[i] + decay * value[i];
      value[i] -= rate * velocity[i];
    }
  }
  return loss;
}

// Fourier transforms of square pictures whose side is a power of two, and with them blur, noise and deblurring as in
// ndlib.restore: all borders are periodic, so that a blur is exactly a product of spectra.

const tables = new Map(); // of each size: cosines and sines of one turn, and the order of reversed bits

function table(n) {
  if (!tables.has(n)) {
    const turn = (f) => Float64Array.from({ length: n / 2 }, (_, i) => f((2 * Math.PI * i) / n));
    const reversed = new Uint32Array(n);
    for (let i = 1; i < n; i++) reversed[i] = (reversed[i >> 1] >> 1) | (i & 1 ? n >> 1 : 0);
    tables.set(n, { cos: turn(Math.cos), sin: turn(Math.sin), reversed });
  }
  return tables.get(n);
}

// Transforms in place of n numbers that lie `stride` apart from `start` on, and of `many` such lines beside each other;
// without the factor 1/n of the inverse.
function transform(re, im, start, stride, n, inverse, many = 1) {
  const { cos, sin, reversed } = table(n);
  for (let i = 0; i < n; i++) {
    if (reversed[i] <= i) continue;
    const other = start + reversed[i] * stride;
    for (let a = start + i * stride, b = other; b < other + many; a++, b++) {
      const x = re[a];
      const y = im[a];
      re[a] = re[b];
      im[a] = im[b];
      re[b] = x;
      im[b] = y;
    }
  }
  const sign = inverse ? 1 : -1;
  for (let half = 1; half < n; half *= 2) {
    const step = n / (2 * half);
    for (let k = 0; k < half; k++) {
      const c = cos[k * step];
      const s = sign * sin[k * step];
      for (let i = k; i < n; i += 2 * half) {
        const first = start + i * stride;
        for (let a = first, b = first + half * stride; a < first + many; a++, b++) {
          const x = re[b] * c - im[b] * s;
          const y = re[b] * s + im[b] * c;
          re[b] = re[a] - x;
          im[b] = im[a] - y;
          re[a] += x;
          im[a] += y;
        }
      }
    }
  }
}

function plane(re, im, n, inverse) {
  for (let i = 0; i < n; i++) transform(re, im, i * n, 1, n, inverse);
  transform(re, im, 0, n, n, inverse, n); // all columns at once
}

/** The spectrum of n x n real values: {re, im}. */
export function spectrum(values, n) {
  const re = Float64Array.from(values);
  const im = new Float64Array(n * n);
  plane(re, im, n, false);
  return { re, im };
}

/** The n x n real values of a spectrum, which is used up. */
export function picture({ re, im }, n) {
  plane(re, im, n, true);
  return re.map((value) => value / (n * n));
}

/** The factors by which a Gaussian blur multiplies the n frequencies of an axis; those of a plane are products. */
export function transferLine(sigma, n) {
  const re = new Float64Array(n);
  const radius = Math.ceil(8 * sigma);
  let sum = 0;
  for (let x = -radius; x <= radius; x++) {
    const weight = Math.exp(-(x * x) / (2 * sigma * sigma));
    re[((x % n) + n) % n] += weight;
    sum += weight;
  }
  transform(re, new Float64Array(n), 0, 1, n, false);
  return re.map((value) => value / sum);
}

/** The middle row of the Wiener filter's kernel, n weights from the centre on. */
export function restoringRow(line, k) {
  const n = line.length;
  const re = new Float64Array(n);
  for (let i = 0; i < n; i++) for (const other of line) re[i] += gain(line[i] * other, k) / (n * n);
  transform(re, new Float64Array(n), 0, 1, n, true);
  return re;
}

/** What the filter conj(H) / (|H|^2 + K) does to a frequency that the blur multiplies by `h`, a real number. */
export function gain(h, k) {
  return h / (h * h + k);
}

/** How many of the frequencies the blur removes, to working precision: if any, it has no inverse. */
export function lost(line) {
  const most = line.reduce((a, b) => Math.max(a, Math.abs(b))) ** 2;
  let count = 0;
  for (const a of line) for (const b of line) if (Math.abs(a * b) < 2 ** -52 * most) count++;
  return count;
}

/** A picture that is blurred, disturbed and restored; `clean` and `noise` are spectra. Restored is null without an inverse. */
export function blurAndRestore(clean, noise, line, amount, k) {
  const n = line.length;
  const possible = k > 0 || lost(line) === 0;
  const [blurred, restored] = [0, 1].map(() => ({ re: new Float64Array(n * n), im: new Float64Array(n * n) }));
  for (let i = 0, p = 0; i < n; i++) {
    for (let j = 0; j < n; j++, p++) {
      const h = line[i] * line[j];
      const w = gain(h, k);
      blurred.re[p] = h * clean.re[p] + amount * noise.re[p];
      blurred.im[p] = h * clean.im[p] + amount * noise.im[p];
      restored.re[p] = w * blurred.re[p];
      restored.im[p] = w * blurred.im[p];
    }
  }
  return { blurred: picture(blurred, n), restored: possible ? picture(restored, n) : null };
}

/** Of these K the one whose filter comes closest to the clean picture; told by the spectra alone. */
export function bestK(clean, noise, line, amount, candidates) {
  const n = line.length;
  const errors = candidates.map((k) => {
    let error = 0;
    for (let i = 0, p = 0; i < n; i++) {
      for (let j = 0; j < n; j++, p++) {
        const h = line[i] * line[j];
        const w = gain(h, k);
        error += (w * (h * clean.re[p] + amount * noise.re[p]) - clean.re[p]) ** 2;
        error += (w * (h * clean.im[p] + amount * noise.im[p]) - clean.im[p]) ** 2;
      }
    }
    return error;
  });
  return candidates[errors.indexOf(Math.min(...errors))];
}

/** Root mean square of the difference. */
export function distance(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return Math.sqrt(sum / a.length);
}

/**
 * Amplitude of a spectrum at each frequency, averaged over directions: pairs of cycles per pixel and the root of the mean
 * of |FFT|^2 / n^2, on which white noise of standard deviation s has s.
 */
export function radial({ re, im }, n, bins = 32) {
  const power = new Float64Array(2 * bins);
  const count = new Float64Array(2 * bins);
  const along = (i) => (i < n / 2 ? i : i - n) / n;
  for (let i = 0, p = 0; i < n; i++) {
    for (let j = 0; j < n; j++, p++) {
      const bin = Math.floor(Math.hypot(along(i), along(j)) * 2 * bins);
      power[bin] += (re[p] ** 2 + im[p] ** 2) / (n * n);
      count[bin] += 1;
    }
  }
  return Array.from({ length: bins - 1 }, (_, b) => [(b + 1.5) / (2 * bins), Math.sqrt(power[b + 1] / count[b + 1])]);
}

/** White noise of standard deviation 1, always the same: Park and Miller's generator, started at 1, and Box and Muller. */
export function noiseField(count) {
  let seed = 1;
  const uniform = () => (seed = (16807 * seed) % 2147483647) / 2147483647;
  return Float64Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}

/** The middle square of a picture, scaled to n x n: each pixel the mean of what it covers. */
export function middleSquare(values, width, height, n) {
  const side = Math.min(width, height);
  const [left, top] = [(width - side) / 2, (height - side) / 2];
  const rows = resample(values, width, height, left, side, n);
  return transposed(resample(transposed(rows, n, height), height, n, top, side, n), n, n);
}

function resample(values, width, height, left, side, n) {
  const out = new Float64Array(n * height);
  for (let j = 0; j < n; j++) {
    const [from, to] = [left + (j * side) / n, left + ((j + 1) * side) / n];
    for (let x = Math.floor(from); x < Math.min(width, Math.ceil(to)); x++) {
      const share = ((Math.min(to, x + 1) - Math.max(from, x)) * n) / side;
      for (let i = 0; i < height; i++) out[i * n + j] += share * values[i * width + x];
    }
  }
  return out;
}

function transposed(values, width, height) {
  return Float64Array.from({ length: width * height }, (_, p) => values[(p % height) * width + Math.floor(p / height)]);
}

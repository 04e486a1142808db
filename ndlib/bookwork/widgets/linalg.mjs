// Linear algebra of the method, the same as ndlib.functional. Matrices are Float64Array, row after row.

/**
 * Eigenvalues, ascending, and eigenvectors of a symmetric matrix of n rows; row k of `vectors` is the k-th vector.
 *
 * Householder reflections make it tridiagonal, implicit QL steps diagonal. Every inner loop runs along a row, which is
 * what makes it fast: 113 rows (a 15 x 15 kernel) take about ten milliseconds.
 */
export function symmetricEigen(matrix, n) {
  const a = Float64Array.from(matrix);
  const vectors = new Float64Array(n * n);
  const diagonal = new Float64Array(n);
  const beside = new Float64Array(n); // beside[i] couples i and i + 1
  tridiagonalise(a, n, vectors, diagonal, beside);
  diagonalise(diagonal, beside, vectors, n);
  return sorted(diagonal, vectors, n);
}

// Reflection i clears row i left of its subdiagonal. Its vector v stays in row i of `a`; vectors becomes Q' = P1 P2 ...
function tridiagonalise(a, n, vectors, diagonal, beside) {
  const heights = new Float64Array(n); // |v|^2 / 2, or 0 where nothing had to be cleared
  const p = new Float64Array(n);
  for (let i = n - 1; i > 0; i--) {
    const v = a.subarray(i * n, i * n + i);
    let scale = 0;
    for (let k = 0; k < i; k++) scale += Math.abs(v[k]);
    if (i === 1 || scale === 0) {
      beside[i - 1] = v[i - 1];
      continue;
    }
    let square = 0;
    for (let k = 0; k < i; k++) {
      v[k] /= scale;
      square += v[k] * v[k];
    }
    const length = v[i - 1] >= 0 ? -Math.sqrt(square) : Math.sqrt(square);
    beside[i - 1] = scale * length;
    const h = square - v[i - 1] * length;
    v[i - 1] -= length;
    heights[i] = h;

    // p = A v / h from the lower triangle alone, then A <- A - v q' - q v' with q = p - (v'p / 2h) v
    p.fill(0, 0, i);
    for (let j = 0; j < i; j++) {
      const row = j * n;
      const vj = v[j];
      let sum = a[row + j] * vj;
      for (let k = 0; k < j; k++) {
        sum += a[row + k] * v[k];
        p[k] += a[row + k] * vj;
      }
      p[j] += sum;
    }
    let projection = 0;
    for (let k = 0; k < i; k++) {
      p[k] /= h;
      projection += p[k] * v[k];
    }
    const half = projection / (2 * h);
    for (let k = 0; k < i; k++) p[k] -= half * v[k];
    for (let j = 0; j < i; j++) {
      const row = j * n;
      const vj = v[j];
      const qj = p[j];
      for (let k = 0; k <= j; k++) a[row + k] -= vj * p[k] + qj * v[k];
    }
  }
  for (let i = 0; i < n; i++) {
    diagonal[i] = a[i * n + i];
    vectors[i * n + i] = 1;
  }
  for (let i = 2; i < n; i++) {
    if (heights[i] === 0) continue;
    const v = a.subarray(i * n, i * n + i);
    for (let r = 0; r < i; r++) {
      const row = r * n;
      let sum = 0;
      for (let k = 0; k < i; k++) sum += vectors[row + k] * v[k];
      sum /= heights[i];
      for (let k = 0; k < i; k++) vectors[row + k] -= sum * v[k];
    }
  }
}

function diagonalise(d, e, vectors, n) {
  for (let l = 0; l < n; l++) {
    for (let step = 0; ; step++) {
      let m = l;
      while (m < n - 1 && Math.abs(e[m]) > Number.EPSILON * (Math.abs(d[m]) + Math.abs(d[m + 1]))) m++;
      if (m === l) break;
      if (step === 60) throw new Error("the eigenvalues do not converge: is the matrix finite?");
      let g = (d[l + 1] - d[l]) / (2 * e[l]); // Wilkinson's shift
      let r = Math.sqrt(g * g + 1);
      g = d[m] - d[l] + e[l] / (g + (g >= 0 ? r : -r));
      let s = 1;
      let c = 1;
      let p = 0;
      let i = m - 1;
      for (; i >= l; i--) {
        const f = s * e[i];
        const b = c * e[i];
        r = Math.sqrt(f * f + g * g);
        e[i + 1] = r;
        if (r === 0) {
          d[i + 1] -= p;
          e[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        rotate(vectors, i * n, n, c, s);
      }
      if (i >= l) continue;
      d[l] -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
}

// Rows at `row` and `row + n`, each of length n.
function rotate(vectors, row, n, c, s) {
  for (let k = row; k < row + n; k++) {
    const low = vectors[k];
    const high = vectors[k + n];
    vectors[k + n] = s * low + c * high;
    vectors[k] = c * low - s * high;
  }
}

function sorted(diagonal, vectors, n) {
  const order = Array.from(diagonal.keys()).sort((i, j) => diagonal[i] - diagonal[j]);
  const inOrder = new Float64Array(n * n);
  order.forEach((from, to) => inOrder.set(vectors.subarray(from * n, from * n + n), to * n));
  return { values: Float64Array.from(order, (k) => diagonal[k]), vectors: inOrder };
}

/** The Euclidean norm of a spectrum, which is the Frobenius norm of its matrix. */
export function norm(values) {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}

/** The gain that so many Newton-Schulz steps apply to each eigenvalue of a matrix with this Frobenius norm. */
export function newtonSchulzResponse(eigenvalues, steps, frobenius = norm(eigenvalues)) {
  return Float64Array.from(eigenvalues, (eigenvalue) => {
    let y = eigenvalue / frobenius;
    let z = 1;
    for (let step = 0; step < steps; step++) {
      const t = 1.5 - 0.5 * z * y;
      y *= t;
      z *= t;
    }
    return z / Math.sqrt(frobenius);
  });
}

// The two products that a network spends its time in, with vectors of four numbers (WebAssembly SIMD).
//
// AssemblyScript; network.mjs has the same functions in plain JavaScript. .ci/products builds products-wasm.mjs.
// Addresses are in bytes. The rows of a matrix may begin anywhere: a table says where, in numbers of four bytes after
// its address. A block at the border is filled up with its last row, which is then computed more than once.

// @ts-ignore: decorator
@inline
function row(matrix: usize, table: usize, i: i32, last: i32): usize {
  return matrix + ((<usize>load<i32>(table + ((<usize>min(i, last)) << 2))) << 2);
}

// @ts-ignore: decorator
@inline
function fma(sum: v128, a: v128, b: v128): v128 {
  return f32x4.add(sum, f32x4.mul(a, b));
}

// @ts-ignore: decorator
@inline
function total(v: v128): f32 {
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

/** c = a b, a of m x k, b of k x n, c of m x n: four rows and eight columns at a time. */
export function multiply(c: usize, a: usize, b: usize, rows: usize, m: i32, k: i32, n: i32): void {
  const last = m - 1;
  for (let i = 0; i < m; i += 4) {
    const a0 = a + ((<usize>(i * k)) << 2);
    const a1 = a + ((<usize>(min(i + 1, last) * k)) << 2);
    const a2 = a + ((<usize>(min(i + 2, last) * k)) << 2);
    const a3 = a + ((<usize>(min(i + 3, last) * k)) << 2);
    const c0 = c + ((<usize>(i * n)) << 2);
    const c1 = c + ((<usize>(min(i + 1, last) * n)) << 2);
    const c2 = c + ((<usize>(min(i + 2, last) * n)) << 2);
    const c3 = c + ((<usize>(min(i + 3, last) * n)) << 2);
    if (n >= 8) {
      for (let start = 0; start < n; start += 8) {
        const j = (<usize>min(start, n - 8)) << 2; // the last eight may overlap those before them
        let s00 = f32x4.splat(0), s01 = f32x4.splat(0), s10 = f32x4.splat(0), s11 = f32x4.splat(0);
        let s20 = f32x4.splat(0), s21 = f32x4.splat(0), s30 = f32x4.splat(0), s31 = f32x4.splat(0);
        for (let l: usize = 0, end = (<usize>k) << 2; l < end; l += 4) {
          const from = b + ((<usize>load<i32>(rows + l)) << 2) + j;
          const b0 = v128.load(from), b1 = v128.load(from, 16);
          let factor = v128.load32_splat(a0 + l);
          s00 = fma(s00, factor, b0);
          s01 = fma(s01, factor, b1);
          factor = v128.load32_splat(a1 + l);
          s10 = fma(s10, factor, b0);
          s11 = fma(s11, factor, b1);
          factor = v128.load32_splat(a2 + l);
          s20 = fma(s20, factor, b0);
          s21 = fma(s21, factor, b1);
          factor = v128.load32_splat(a3 + l);
          s30 = fma(s30, factor, b0);
          s31 = fma(s31, factor, b1);
        }
        v128.store(c0 + j, s00);
        v128.store(c0 + j, s01, 16);
        v128.store(c1 + j, s10);
        v128.store(c1 + j, s11, 16);
        v128.store(c2 + j, s20);
        v128.store(c2 + j, s21, 16);
        v128.store(c3 + j, s30);
        v128.store(c3 + j, s31, 16);
      }
    } else {
      for (let j: usize = 0, width = (<usize>n) << 2; j < width; j += 4) {
        let s0: f32 = 0, s1: f32 = 0, s2: f32 = 0, s3: f32 = 0;
        for (let l: usize = 0, end = (<usize>k) << 2; l < end; l += 4) {
          const factor = load<f32>(b + ((<usize>load<i32>(rows + l)) << 2) + j);
          s0 += load<f32>(a0 + l) * factor;
          s1 += load<f32>(a1 + l) * factor;
          s2 += load<f32>(a2 + l) * factor;
          s3 += load<f32>(a3 + l) * factor;
        }
        store<f32>(c0 + j, s0);
        store<f32>(c1 + j, s1);
        store<f32>(c2 + j, s2);
        store<f32>(c3 + j, s3);
      }
    }
  }
}

/** c += a b', a of m x n, b of k x n, c of m x k: all inner products of four rows of a and two of b at a time. */
export function rowProducts(
  c: usize, a: usize, aRows: usize, b: usize, bRows: usize, m: i32, k: i32, n: i32,
): void {
  const vectors = (<usize>(n & ~3)) << 2;
  const width = (<usize>n) << 2;
  for (let i = 0; i < m; i += 4) {
    const a0 = row(a, aRows, i, m - 1), a1 = row(a, aRows, i + 1, m - 1);
    const a2 = row(a, aRows, i + 2, m - 1), a3 = row(a, aRows, i + 3, m - 1);
    for (let l = 0; l < k; l += 2) {
      const b0 = row(b, bRows, l, k - 1), b1 = row(b, bRows, l + 1, k - 1);
      let s00 = f32x4.splat(0), s01 = f32x4.splat(0), s10 = f32x4.splat(0), s11 = f32x4.splat(0);
      let s20 = f32x4.splat(0), s21 = f32x4.splat(0), s30 = f32x4.splat(0), s31 = f32x4.splat(0);
      for (let j: usize = 0; j < vectors; j += 16) {
        const x = v128.load(b0 + j), y = v128.load(b1 + j);
        let z = v128.load(a0 + j);
        s00 = fma(s00, z, x);
        s01 = fma(s01, z, y);
        z = v128.load(a1 + j);
        s10 = fma(s10, z, x);
        s11 = fma(s11, z, y);
        z = v128.load(a2 + j);
        s20 = fma(s20, z, x);
        s21 = fma(s21, z, y);
        z = v128.load(a3 + j);
        s30 = fma(s30, z, x);
        s31 = fma(s31, z, y);
      }
      let t00 = total(s00), t01 = total(s01), t10 = total(s10), t11 = total(s11);
      let t20 = total(s20), t21 = total(s21), t30 = total(s30), t31 = total(s31);
      for (let j = vectors; j < width; j += 4) {
        const x = load<f32>(b0 + j), y = load<f32>(b1 + j);
        let z = load<f32>(a0 + j);
        t00 += z * x;
        t01 += z * y;
        z = load<f32>(a1 + j);
        t10 += z * x;
        t11 += z * y;
        z = load<f32>(a2 + j);
        t20 += z * x;
        t21 += z * y;
        z = load<f32>(a3 + j);
        t30 += z * x;
        t31 += z * y;
      }
      addTo(c, k, i, l, t00, t01);
      if (i + 1 < m) addTo(c, k, i + 1, l, t10, t11);
      if (i + 2 < m) addTo(c, k, i + 2, l, t20, t21);
      if (i + 3 < m) addTo(c, k, i + 3, l, t30, t31);
    }
  }
}

// @ts-ignore: decorator
@inline
function addTo(c: usize, k: i32, i: i32, l: i32, first: f32, second: f32): void {
  const at = c + ((<usize>(i * k + l)) << 2);
  store<f32>(at, load<f32>(at) + first);
  if (l + 1 < k) store<f32>(at, load<f32>(at, 4) + second, 4);
}

// Calls functions of the widgets' modules as a file of requests says, and prints what they return.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , folder, file] = process.argv;
const load = (name) => import(pathToFileURL(`${folder}/${name}`));
const files = ["linalg.mjs", "kernels.mjs", "pairs.mjs", "patches.mjs", "fourier.mjs", "gradient-descent.mjs", "evidence.mjs", "flow.mjs", "draw.mjs"];
const [linalg, kernels, pairs, patches, fourier, descent, evidence, layer, draw] = await Promise.all(files.map(load));
const { newtonSchulzResponse, symmetricEigen } = linalg;
const { autocovariance, decompose, filtered, gainsOf, kernelsOf, mirrored } = kernels;
const { correlationOf, drawnPairs, offsetOf, pairMoments, times, whiteningMatrix } = pairs;
const { inverseRoot, moments, patchMatrix, product, weightsOf } = patches;
const { bestK, blurAndRestore, lost, middleSquare, noiseField, radial, restoringRow, spectrum, transferLine } = fourier;

const functions = {
  response: ({ eigenvalues, steps }) => newtonSchulzResponse(Float64Array.from(eigenvalues), steps),
  eigen: ({ matrix, n }) => symmetricEigen(Float64Array.from(matrix), n),
  autocovariance: ({ planes, width, height, reach }) => autocovariance(planes, width, height, reach),
  kernels: ({ tables, reach, k, steps, eps, output }) => {
    const decomposition = decompose(tables.map((table) => Float64Array.from(table)), reach, k);
    return kernelsOf(decomposition, gainsOf(decomposition, steps, eps), output);
  },
  filter: ({ planes, width, height, weights, k }) =>
    filtered(planes.map((plane) => mirrored(plane, width, height, 7)), weights, k),
  pairs: ({ pixels, width, distance, direction, method }) => {
    const offset = offsetOf(distance, direction);
    const { means, covariance } = pairMoments(pixels, width, offset);
    const matrix = whiteningMatrix(covariance, method);
    const points = drawnPairs(pixels, width, offset, means).map((pair) => times(pair, matrix));
    return { covariance, matrix, points, correlation: correlationOf(covariance) };
  },
  patches: ({ pixels, width, k, eps }) => {
    const matrix = patchMatrix(Float64Array.from(pixels), width, k);
    const { mean, covariance } = moments(matrix, k * k);
    const root = inverseRoot(covariance, k * k, eps);
    const y = Object.fromEntries(["middle", "mean", "edge", "D"].map((w) => [w, product(matrix, weightsOf(w, k, root))]));
    return { matrix, mean, covariance, root, y };
  },
  blur: ({ pixels, n, sigma, noise, k, candidates }) => {
    const line = transferLine(sigma, n);
    const field = noiseField(n * n);
    const [clean, disturbance] = [pixels, field].map((values) => spectrum(values, n));
    const shown = blurAndRestore(clean, disturbance, line, noise, k);
    const best = bestK(clean, disturbance, line, noise, candidates);
    return { ...shown, line, field, best, row: restoringRow(line, k), lost: lost(line), radial: radial(clean, n) };
  },
  descent: ({ correlation, scale, rate, start }) => {
    const covariance = descent.covarianceOf(correlation, scale);
    const paths = [descent.plainPath, descent.deconvolvedPath].map((path) => path(covariance, rate, start));
    const waiting = [descent.stepsToHundredth(covariance, rate, start), descent.deconvolvedStepsToHundredth(rate)];
    return {
      covariance,
      paths,
      waiting: waiting.map(String), // JSON has no Infinity
      inputs: descent.inputs(correlation, scale),
      losses: paths.map((path) => path.map((w) => descent.loss(covariance, w))),
      ...descent.rates(covariance),
    };
  },
  evidence: ({ table, settings }) => {
    const { shown, hidden } = evidence.chosen(table, settings);
    const beside = { differences: evidence.differencesOf(table, shown), agreement: evidence.agreement(table, shown) };
    return { shown, hidden, pairs: evidence.pairsOf(table, shown), summary: evidence.summary(table, shown), times: evidence.timesOf(table, shown), ...beside };
  },
  flow: ({ pixels, blur, noise, k, ...settings }) => {
    const shown = layer.disturbed(Float64Array.from(pixels), blur, noise);
    const { matrix, covariance, variances, root, folded, y } = layer.flow(layer.statisticsOf(shown, k), settings);
    return { shown, matrix, covariance, variances, root, folded, y };
  },
  diverging: ({ values, dark }) => values.map((value) => draw.diverging(value, dark)),
  likeness: ({ a, b }) => layer.likeness(a, b),
  square: ({ pixels, width, height, n }) => middleSquare(pixels, width, height, n),
};

const requests = JSON.parse(readFileSync(file, "utf8"));
const typed = (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
console.log(JSON.stringify(requests.map(([name, values]) => functions[name](values)), typed));

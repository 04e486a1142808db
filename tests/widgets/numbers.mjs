// Calls functions of the widgets' modules as a file of requests says, and prints what they return.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , folder, file] = process.argv;
const load = (name) => import(pathToFileURL(`${folder}/${name}`));
const [linalg, kernels] = await Promise.all(["linalg.mjs", "kernels.mjs"].map(load));
const { newtonSchulzResponse, symmetricEigen } = linalg;
const { autocovariance, decompose, filtered, gainsOf, kernelsOf, mirrored } = kernels;

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
};

const requests = JSON.parse(readFileSync(file, "utf8"));
const typed = (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
console.log(JSON.stringify(requests.map(([name, values]) => functions[name](values)), typed));

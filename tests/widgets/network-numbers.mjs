// Runs layers and networks of network.mjs as a file of requests says, and prints what comes out.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { answer } from "./network-cases.mjs";

const [, , folder, file] = process.argv;
const load = (name) => import(pathToFileURL(`${folder}/${name}`));
const [network, { products }] = await Promise.all(["network.mjs", "products-wasm.mjs"].map(load));
const engines = { plain: network.plainEngine(8), vector: await network.vectorEngine(products, 8) };

const typed = (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
const requests = JSON.parse(readFileSync(file, "utf8"));
console.log(JSON.stringify(requests.map((request) => answer(network, engines[request.engine], request)), typed));

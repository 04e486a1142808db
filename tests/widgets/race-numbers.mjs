// Plays the race as a file says, and prints what it reports.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , folder, file] = process.argv;
const load = (name) => import(pathToFileURL(`${folder}/${name}`));
const [network, race, packing] = await Promise.all(["network.mjs", "race.mjs", "digits.mjs"].map(load));

const { packed, count, trained, settings, steps } = JSON.parse(readFileSync(file, "utf8"));
const { images, labels } = await packing.unpack(Buffer.from(packed, "base64"), count);
const digits = { images: packing.standardised(images), labels, trained };
const racer = race.racer(network.plainEngine(), digits, settings);
const before = racer.report();
const losses = Array.from({ length: steps }, () => racer.step());
const typed = (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
console.log(JSON.stringify({ images, labels, before, losses, after: racer.report() }, typed));

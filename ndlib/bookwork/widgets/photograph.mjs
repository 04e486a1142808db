// A photograph that a reader brings: read, scaled and checked in the browser, and sent nowhere.

import { make } from "./draw.mjs";

const SMALLEST = 32; // pixels a side
const LUMINANCE = [0.2126, 0.7152, 0.0722]; // of red, green and blue, as in ndlib.data

/** A picture from the bytes of a file that the widget carries: its three planes and its size. */
export async function decode(view, type) {
  return planesOf(await createImageBitmap(new Blob([view], { type })), Infinity);
}

/**
 * A reader's picture with at most `area` pixels: {planes, width, height, remarks}; the remarks say what was done to it.
 * Throws an Error with a message for the reader where it cannot be used.
 */
export async function readPhotograph(file, area) {
  const name = `“${file.name}”`;
  if (file.type && !file.type.startsWith("image/")) throw new Error(`${name} is not a picture. Choose a JPEG, PNG or WebP file.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${name} cannot be read: it is damaged, too large or of a kind that this browser does not know.`);
  }
  const { width, height } = bitmap;
  const picture = planesOf(bitmap, area);
  if (Math.min(picture.width, picture.height) < SMALLEST) {
    throw new Error(`${name} has ${width} × ${height} pixels: too few, or too long and narrow. Take one with ${SMALLEST} or more a side.`);
  }
  const [red, green, blue] = picture.planes;
  if (Math.max(...picture.planes.map(spread)) < 0.004) {
    throw new Error(`${name} is of one colour only: nothing in it varies, so there is nothing to learn from it.`);
  }
  const remarks = [];
  if (picture.width < width) {
    const size = (width * height) / 1e6;
    remarks.push(`It was scaled from ${size < 1 ? size.toFixed(2) : size.toFixed(0)} megapixels to ${picture.width} × ${picture.height}.`);
  }
  if (picture.transparent) remarks.push("Its transparent parts lie on white.");
  if (red.every((value, i) => Math.abs(value - green[i]) + Math.abs(value - blue[i]) < 0.02)) {
    remarks.push("It is grey: its three colours are one and the same.");
  }
  return { ...picture, remarks };
}

/** The grey picture of three planes. */
export function luminance(planes) {
  return Float32Array.from(planes[0], (_, i) => LUMINANCE.reduce((sum, weight, c) => sum + weight * planes[c][i], 0));
}

function spread(plane) {
  return plane.reduce((a, b) => Math.max(a, b)) - plane.reduce((a, b) => Math.min(a, b));
}

function planesOf(bitmap, area) {
  const factor = Math.min(1, Math.sqrt(area / (bitmap.width * bitmap.height)));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * factor)));
  // Halving averages four pixels into one; a single larger step would skip pixels, and alias.
  let source = bitmap;
  while (source.width > 2 * width) source = scaled(source, Math.ceil(source.width / 2), Math.ceil(source.height / 2));
  const { data } = scaled(source, width, height).getContext("2d").getImageData(0, 0, width, height);
  let transparent = false;
  const planes = [0, 1, 2].map(() => new Float32Array(width * height));
  for (let i = 0; i < width * height; i++) {
    const opacity = data[4 * i + 3] / 255;
    transparent ||= opacity < 1;
    for (let c = 0; c < 3; c++) planes[c][i] = 1 - opacity + (opacity * data[4 * i + c]) / 255;
  }
  return { planes, width, height, transparent };
}

function scaled(source, width, height) {
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  return canvas;
}

/** Calls back with a file that a reader chooses with this button or drops on this element. */
export function photographButton(place, target, onFile) {
  const input = make("input", { type: "file", accept: "image/*", "data-lm-suppress-shortcuts": "true" });
  input.addEventListener("change", () => {
    if (input.files.length) onFile(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  place.append(make("label", { class: "nd-file" }, input, make("span", {}, "Your own photograph …")));
  target.addEventListener("dragover", (event) => {
    event.preventDefault();
    target.classList.add("nd-dropping");
  });
  target.addEventListener("dragleave", () => target.classList.remove("nd-dropping"));
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    target.classList.remove("nd-dropping");
    const [file] = event.dataTransfer.files;
    if (file) onFile(file);
  });
}

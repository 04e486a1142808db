// A photograph that the reader blurs, disturbs with noise and restores: what the Wiener filter brings back, and why not more.

import { COLORS, brief, decades, make, oncePerFrame, paintGrey, plot, roundTicks } from "./draw.mjs";
import { change, choice, draggable, frame, preset, reset, slider } from "./controls.mjs";
import {
  bestK, blurAndRestore, distance, gain, lost, middleSquare, noiseField, picture, radial, restoringRow, spectrum, transferLine,
} from "./fourier.mjs";
import { luminance, ownPictures } from "./photograph.mjs";

const SIDE = 128; // pixels
const OWN = "own"; // the reader's photograph, which is no trait: it stays here
const AREA = 640 * 640; // pixels that are read of it
const TRAITS = ["photograph", "sigma", "noise", "k"];
const LEVELS = [0, 0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50]; // of noise, in grey levels of 255
const [SMALLEST, LARGEST] = [0.3, 5]; // sigma, pixels
const STEPS = { perDecade: 4, from: -8, to: 0 }; // of K; one step below the first stands for K = 0
const FIRST = STEPS.perDecade * STEPS.from;
const AT_MOST = [1e-3, 1e3]; // gains that are drawn
const REACH = 8; // pixels of the kernels that are drawn
const INKS = { blur: "#CC79A7", restore: COLORS.nd, noise: "#D55E00" };
const text = (color) => `color-mix(in srgb, ${color} 65%, var(--nd-ink))`;

const toK = (position) => (position < FIRST ? 0 : Number((10 ** (position / STEPS.perDecade)).toPrecision(2)));
const toPosition = (k) => (k === 0 ? FIRST - 1 : Math.max(FIRST, Math.round(STEPS.perDecade * Math.log10(k))));
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const roundSigma = (sigma) => Number(clamp(Math.round(sigma * 20) / 20, SMALLEST, LARGEST).toFixed(2));
const levels = (value) => `${brief(255 * value)} grey level${brief(255 * value) === "1" ? "" : "s"}`;
const offBy = (error) => (error < 1e-5 ? "exact" : `off by ${brief(255 * error)} of 255`);
const pixels = (sigma) => `${brief(sigma, 3)} pixel${sigma === 1 ? "" : "s"}`;

function render({ model, el }) {
  const ui = frame(el, {
    model,
    name: "blur-lab",
    title: "Blur a photograph, and undo the blur",
    tryThis: "Press “A little noise”, then find the K that lets you see the picture again.",
  });

  // The picture.
  const panels = {
    clean: panel("photograph"),
    blurred: panel("blurred + noise"),
    restored: panel("restored"),
  };
  panels.blurred.canvas.classList.add("nd-drag");
  panels.blurred.box.append(make("div", { class: "nd-hint", "aria-hidden": "true" }, "◂ drag: blur ▸"));
  const kernelBox = make("div", { class: "nd-pick" });
  const gainBox = make("div", { class: "nd-gains" });
  ui.more.append(kernelBox, gainBox);
  ui.picture.append(...Object.values(panels).map(({ root }) => root));
  const plots = [
    plot(kernelBox, "Middle rows of the blur kernel and of the kernel that restores", (width) => kernelPlot(now, width)),
    plot(gainBox, "What the blur and the restoring filter multiply each frequency by, and the noise", (width) => gainPlot(now, width)),
  ];
  ui.undo.push(...plots.map((each) => each.destroy));

  // The controls.
  const names = model.get("names");
  const photographs = choice(ui, {
    trait: "photograph",
    label: "photograph",
    options: [...names.map((name) => [name, name]), [OWN, "your own"]],
  });
  const ownOption = photographs.inputs[names.length].parentElement;
  slider(ui, { trait: "sigma", label: "blur σ", min: SMALLEST, max: LARGEST, step: 0.05, format: (s) => `${brief(s, 3)} px` });
  slider(ui, {
    trait: "noise",
    label: "noise",
    min: 0,
    max: LEVELS.length - 1,
    format: (noise) => (noise === 0 ? "none" : levels(noise)),
    toValue: (position) => LEVELS[position] / 255,
    toPosition: (noise) => nearest(LEVELS, 255 * noise),
  });
  slider(ui, {
    trait: "k",
    label: "K",
    min: FIRST - 1,
    max: STEPS.perDecade * STEPS.to,
    format: (k) => (k === 0 ? "0: inverse" : brief(k)),
    toValue: toK,
    toPosition,
  });

  preset(ui, "No noise", { sigma: 1, noise: 0, k: 0 });
  preset(ui, "A little noise", { sigma: 1, noise: 1 / 255, k: 0 });
  preset(ui, "The same, Wiener", { sigma: 1, noise: 1 / 255, k: 0.008 });
  preset(ui, "Too much blur", { sigma: 4, noise: 1 / 255, k: 0.001 });
  preset(ui, "Best K", {}).addEventListener("click", () => {
    const candidates = Array.from({ length: -FIRST + 1 }, (_, i) => toK(FIRST + i));
    const { clean, noise } = sources();
    change(model, { k: bestK(clean, noise, transferLine(model.get("sigma"), SIDE), model.get("noise"), candidates) });
  });
  const own = ownPictures(ui, { area: AREA, use: useOwn, remark: `Its middle square is shown, grey, with ${SIDE} × ${SIDE} pixels.` });
  reset(ui, TRAITS, () => {
    own.forget();
    known.delete(OWN);
    adapt();
  });

  // Direct manipulation: the blurred picture is dragged wider, the kernel's mark is dragged along, and so is K's line.
  let grip = null;
  draggable(panels.blurred.canvas, (event) => {
    if (event.type === "pointerdown") grip = { x: event.clientX, sigma: model.get("sigma") };
    change(model, { sigma: roundSigma(grip.sigma + (event.clientX - grip.x) / 50) });
  });
  draggable(kernelBox, (event) => change(model, { sigma: roundSigma(Math.abs(plots[0].point(event)[0])) }));
  draggable(gainBox, (event) => {
    const position = Math.round(STEPS.perDecade * 2 * Math.log10(plots[1].point(event)[1]));
    change(model, { k: toK(clamp(position, FIRST - 1, STEPS.perDecade * STEPS.to)) });
  });

  // The spectra of the photographs and of the noise are kept: what changes is what they are multiplied by.
  const known = new Map();
  let noise = null;
  let now = null;
  let painted = null; // what stands in the first panel
  function prepare(values) {
    const clean = spectrum(values, SIDE);
    return { values, clean, radial: radial(clean, SIDE) };
  }
  function sources() {
    const name = model.get("photograph");
    noise ??= spectrum(noiseField(SIDE * SIDE), SIDE);
    if (!known.has(name)) {
      const view = model.get("pictures");
      const bytes = new Uint8Array(view.buffer, view.byteOffset + names.indexOf(name) * SIDE * SIDE, SIDE * SIDE);
      known.set(name, prepare(Float64Array.from(bytes, (value) => value / 255)));
    }
    return { ...known.get(name), noise };
  }

  function useOwn({ planes, width, height }) {
    known.set(OWN, prepare(middleSquare(luminance(planes), width, height, SIDE)));
    adapt();
    change(model, { photograph: OWN });
    refreshSoon();
  }

  function refresh() {
    const began = performance.now();
    if (model.get("photograph") === OWN && !known.has(OWN)) {
      change(model, { photograph: names[0] });
      return; // that change calls back
    }
    const [sigma, amount, k] = ["sigma", "noise", "k"].map((trait) => model.get(trait));
    const source = sources();
    const line = transferLine(sigma, SIDE);
    const shown = blurAndRestore(source.clean, source.noise, line, amount, k);
    now = { ...shown, ...source, sigma, amount, k, line, row: restoringRow(line, k), lost: lost(line) };
    now.before = distance(shown.blurred, source.values);
    now.after = shown.restored && distance(shown.restored, source.values);
    now.border = borderOf(now);
    Object.assign(ui.root, shown); // what is drawn, for tests and for the curious
    if (source.values !== painted) panels.clean.show(source.values, `${SIDE} × ${SIDE} pixels`);
    painted = source.values;
    panels.blurred.show(shown.blurred, offBy(now.before));
    const none = `The blur wipes out ${now.lost.toLocaleString("en")} of ${(SIDE * SIDE).toLocaleString("en")} frequencies, and nothing times zero brings them back. Raise K.`;
    panels.restored.show(shown.restored, now.after === null ? "no inverse" : offBy(now.after), none);
    plots.forEach((each) => each.draw());
    ui.say(inWords(now));
    ui.root.milliseconds = performance.now() - began; // for the benchmark
  }
  const refreshSoon = oncePerFrame(refresh);
  const adapt = () => (ownOption.hidden = !known.has(OWN));
  ui.onChange([...TRAITS, "pictures"], refreshSoon);
  ui.onChange(["pictures"], () => names.forEach((name) => known.delete(name)));
  adapt();
  refresh();
  return ui.destroy;
}

// One of the three pictures, with its name above and its error below.
function panel(name) {
  const canvas = make("canvas", { role: "img", "aria-label": name });
  const error = make("span");
  const message = make("p", { class: "nd-none", hidden: "" });
  const box = make("div", { class: "nd-canvas" }, canvas, message);
  return {
    box,
    canvas,
    root: make("div", { class: "nd-shot" }, make("div", { class: "nd-title" }, make("strong", {}, name), error), box),
    show(values, remark, none) {
      message.hidden = values !== null;
      canvas.style.visibility = values === null ? "hidden" : "";
      if (values === null) message.textContent = none;
      else paintGrey(canvas, values, SIDE, 0, 1);
      error.textContent = remark;
      canvas.setAttribute("aria-label", remark ? `${name}, ${remark}` : name);
    },
  };
}

function nearest(values, goal) {
  const distances = values.map((value) => Math.abs(value - goal));
  return distances.indexOf(Math.min(...distances));
}

// The frequency from which on the noise is stronger than what the blur left of the picture, averaged over directions; null
// where there is none.
function borderOf({ line, amount, radial: amplitudes }) {
  if (amount === 0) return null;
  const covered = amplitudes.findIndex(([f, amplitude]) => f > 0.03 && at(line, f) * amplitude < amount);
  return covered < 0 || amplitudes[covered][0] > 0.5 ? null : amplitudes[covered][0];
}

// The transfer function between the frequencies of the axis, on its logarithm.
function at(line, f) {
  const place = f * SIDE;
  const index = Math.min(SIDE / 2 - 1, Math.floor(place));
  const [low, high] = [line[index], line[index + 1]].map((value) => Math.log(Math.max(Math.abs(value), 1e-300)));
  return Math.exp(low + (place - index) * (high - low));
}

function kernelPlot(now, width) {
  const height = width < 420 ? 210 : 230;
  if (!now) return { height, x: { domain: [0, 1] }, y: { domain: [0, 1] }, marks: [] };
  const { sigma, row } = now;
  const offsets = Array.from({ length: 2 * REACH + 1 }, (_, i) => i - REACH);
  const blur = offsets.map((x) => [x, Math.exp((-x * x) / (2 * sigma * sigma))]);
  const bell = Array.from({ length: 20 * REACH + 1 }, (_, i) => i / 10 - REACH).map((x) => [x, Math.exp((-x * x) / (2 * sigma * sigma))]);
  const restoring = offsets.map((x) => [x, row[Math.abs(x)] / row[0]]);
  const possible = now.restored !== null;
  const every = width < 330 ? 4 : 2;
  const half = Math.exp(-0.5);
  const marks = [
    { line: [[-REACH, 0], [REACH, 0]], color: "var(--nd-muted)", width: 1 },
    { line: bell, color: INKS.blur, width: 2 },
    { dots: blur, color: INKS.blur, radius: 2.5 },
    { line: [[-sigma, half], [sigma, half]], color: "var(--nd-pick)", width: 1.5, dash: "2 3" },
    { dots: [[-sigma, half], [sigma, half]], color: "var(--nd-pick)", radius: 6 },
  ];
  if (possible) marks.splice(3, 0, { line: restoring, color: INKS.restore, width: 2 }, { dots: restoring, color: INKS.restore, radius: 3 });
  marks.push({ text: "blur", at: [REACH, 1.15], anchor: "end", dy: 12, color: text(INKS.blur) });
  const name = possible ? "restoring" : "no inverse";
  marks.push({ text: name, at: [REACH, -0.65], anchor: "end", dy: 4, color: text(INKS.restore) });
  marks.push({ text: "σ", at: [sigma, half], dx: 9, dy: -5, color: "var(--nd-ink)" });
  return {
    height,
    x: {
      domain: [-REACH, REACH],
      label: "pixels from the centre",
      ticks: offsets.filter((x) => x % every === 0).map((x) => ({ at: x, text: `${x}`.replace("-", "−") })),
    },
    y: { domain: [-1.05, 1.15], label: "middle row ÷ its largest weight", ticks: roundTicks([-1, 1], 4) },
    marks,
  };
}

// The runs of points whose values can be drawn, each cut off where it leaves the picture.
function runs(points, [low, high]) {
  const inside = ([, value]) => value >= low && value <= high;
  const cut = ([f, value], [g, outer]) => {
    const border = outer > high ? high : low;
    return [f + ((g - f) * Math.log(border / value)) / Math.log(outer / value), border];
  };
  const found = [];
  points.forEach((point, i) => {
    if (!inside(point)) return;
    const [before, after] = [points[i - 1], points[i + 1]];
    if (!before || !inside(before)) found.push(before ? [cut(point, before)] : []);
    found[found.length - 1].push(point);
    if (after && !inside(after)) found[found.length - 1].push(cut(point, after));
  });
  return found;
}

function gainPlot(now, width) {
  const height = width < 420 ? 210 : 230;
  if (!now) return { height, x: { domain: [0, 1] }, y: { domain: [0, 1] }, marks: [] };
  const { line, k, amount, radial: amplitudes, border, restored } = now;
  const fs = Array.from({ length: SIDE / 2 + 1 }, (_, i) => i / SIDE);
  const blur = fs.map((f, i) => [f, Math.max(Math.abs(line[i]), 1e-30)]);
  const filter = fs.map((f, i) => [f, Math.max(gain(Math.abs(line[i]), k), 1e-30)]);
  const noise = amount === 0 ? [] : amplitudes.filter(([f]) => f <= 0.5).map(([f, amplitude]) => [f, amount / Math.max(amplitude, 1e-12)]);
  const marks = [];
  const draw = (points, style) => runs(points, AT_MOST).forEach((run) => marks.push({ line: run, ...style }));
  if (border !== null) {
    const [low, high] = AT_MOST;
    marks.push({ area: [[border, low], [0.5, low], [0.5, high], [border, high]], color: INKS.noise, opacity: 0.13 });
  }
  marks.push({ line: [[0, 1], [0.5, 1]], color: "var(--nd-muted)", width: 1 });
  const root = Math.sqrt(k);
  const grip = [0.5, Math.max(root, AT_MOST[0])];
  if (root > AT_MOST[0]) marks.push({ line: [[0, root], grip], color: "var(--nd-pick)", width: 1.5, dash: "2 3" });
  draw(noise, { color: INKS.noise, width: 2, dash: "6 4" });
  draw(blur, { color: INKS.blur, width: 2.5 });
  if (restored) draw(filter, { color: INKS.restore, width: 2.5 });
  marks.push({ grip, color: "var(--nd-pick)", radius: 5 });
  marks.push({ text: k === 0 ? "K = 0" : "√K", at: grip, dx: 9, dy: 5, color: "var(--nd-ink)" });
  marks.push(nameOfFilter(filter, restored !== null));
  const steep = blur.find(([, value]) => value < 0.4);
  const beside = steep !== undefined && steep[0] < 0.15; // a blur that falls at once has its name at its right
  marks.push({ text: "blur |H|", at: beside ? steep : [0, 1], dx: beside ? 8 : 6, dy: beside ? 4 : 17, color: text(INKS.blur) });
  if (noise.length) {
    const last = clamp(noise[noise.length - 1][1], AT_MOST[0], AT_MOST[1]);
    marks.push({ text: "noise ÷ picture", at: [0.5, last], anchor: "end", dx: -10, dy: last < 0.01 ? -8 : 19, color: text(INKS.noise) });
  }
  if (border !== null && border < 0.42) {
    marks.push({ text: width < 330 ? "noise wins" : "here noise wins", at: [0.5, AT_MOST[1]], anchor: "end", dx: -4, dy: 16, color: text(INKS.noise), plain: true });
  }
  return {
    height,
    box: { right: width - 44 }, // room for the name of the grip
    x: { domain: [0, 0.5], label: "spatial frequency, cycles per pixel", ticks: roundTicks([0, 0.5], 5) },
    y: { domain: AT_MOST, log: true, label: "factor, for each frequency", ticks: decades(AT_MOST, 7) },
    marks,
  };
}

// The filter's name stands at its peak, or beside it where it leaves the picture.
function nameOfFilter(filter, possible) {
  const color = text(INKS.restore);
  if (!possible) return { text: "no inverse", at: [0, 30], dx: 6, color };
  const name = "restoring filter";
  const rising = filter.find(([, value]) => value > 60);
  if (rising) return rising[0] > 0.25 ? { text: name, at: rising, anchor: "end", dx: -10, color } : { text: name, at: rising, dx: 12, color };
  const [f, value] = filter.reduce((best, point) => (point[1] > best[1] ? point : best));
  return { text: name, at: [clamp(f, 0.13, 0.36), value], anchor: "middle", dy: -9, color };
}

function inWords({ sigma, amount, k, before, after, border, lost: gone }) {
  const noise = amount === 0 ? "no noise" : `noise of ${levels(amount)}`;
  let words = `A blur of ${pixels(sigma)} and ${noise} leave the picture off by ${levels(before)}. `;
  if (after === null) {
    return `${words}This blur has no inverse: it takes ${gone.toLocaleString("en")} frequencies to zero, as far as a computer can tell.`;
  }
  const filter = k === 0 ? "The inverse filter" : `The Wiener filter with K = ${brief(k)}`;
  words += `${filter} leaves it off by ${levels(after)}: ${verdictOn(before, after)}.`;
  if (border !== null) {
    words += ` Beyond ${brief(border)} cycles per pixel, ${percent(shareBeyond(border))} of all frequencies, noise drowns the picture: lost for good.`;
  }
  return words;
}

const percent = (share) => `${Math.round(100 * share)} %`;

/** What a filter did, by the distances from the photograph before and after it. */
export function verdictOn(before, after) {
  if (after < 1e-4) return "it is as good as the original";
  if (after > 1) return "that is more than from black to white, ruined";
  if (after > before) return "that is worse than the blurred picture";
  return `that takes away ${percent(1 - after / before)} of the error`;
}

/** The share of all frequencies of a picture that lie farther out than this one, in cycles per pixel up to 0.5. */
export const shareBeyond = (frequency) => 1 - Math.PI * frequency ** 2;

export default { render };

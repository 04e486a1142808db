// The filter that makes the pixels of photographs uncorrelated: from one picture or a thousand, of any size up to 15 x 15.

import { COLORS, brief, make, oncePerFrame, paintColour, paintGrey, paintSigned, plot, roundTicks, signedBar } from "./draw.mjs";
import { change, choice, draggable, floats, frame, logSlider, onArrows, preset, reset, slider } from "./controls.mjs";
import { PAIRS, autocovariance, decompose, filtered, gainsOf, kernelsOf, mirrored, surround, unfolded } from "./kernels.mjs";
import { decode, luminance, ownPictures } from "./photograph.mjs";
import { background } from "./background.mjs";
import workerSource from "./kernel-worker.mjs?text";

const REACH = { grey: 14, colour: 8 }; // lags kept, which makes kernels up to 15 x 15, and 9 x 9 in colour
const AREA = 288 * 192; // pixels of a reader's photograph, so that filtering it takes less than a frame
const MARGIN = 7; // pixels that the largest kernel reaches over the border
const EXACT = 21; // the place after 20 steps on the slider
const TRAITS = ["source", "count", "patch_size", "eps", "steps", "channel"];
const COLOURS = ["red", "green", "blue"];
const INKS = ["#D55E00", "#009E73", COLORS.nd]; // of lines for red, green and blue, told apart by all readers

const isGrey = (model) => model.get("channel") === "luminance";
const reachOf = (model) => (isGrey(model) ? REACH.grey : REACH.colour);

/** The autocovariances that the widget shows the kernel of: {tables, reach}. */
export function statistics(model) {
  const grey = isGrey(model);
  const reach = reachOf(model);
  const full = (2 * reach + 1) ** 2;
  const half = (full + 1) / 2;
  const own = model.get("source") === "photograph";
  const values = own
    ? floats(model.get(grey ? "own_luminance" : "own_colours"))
    : floats(model.get(grey ? "luminance" : "colours"), Float32Array);
  // One count after the other; of a count, one pair of colours after the other, symmetric ones as halves.
  const sizes = grey ? [half] : PAIRS.map(([a, b]) => (a === b ? half : full));
  let start = own ? 0 : model.get("counts").indexOf(model.get("count")) * sizes.reduce((sum, size) => sum + size, 0);
  const tables = sizes.map((size) => {
    const part = Float64Array.from(values.subarray(start, start + size));
    start += size;
    return size === half ? unfolded(part, reach) : part;
  });
  return { tables, reach };
}

// What Python and the page's own state hold: the same order, symmetric tables as halves.
function packed(tables, reach) {
  const middle = ((2 * reach + 1) ** 2 - 1) / 2;
  const parts = tables.map((table, i) => (tables.length === 1 || PAIRS[i][0] === PAIRS[i][1] ? table.slice(middle) : table));
  return new DataView(Float64Array.from(parts.flatMap((part) => Array.from(part))).buffer);
}

function render({ model, el }) {
  const ui = frame(el, {
    model,
    name: "kernel-explorer",
    title: "Deconvolution kernels of photographs",
    tryThis: "Press “5 steps”, which is what the layer takes, and watch the ring.",
  });
  const counts = model.get("counts");
  const worker = background(workerSource, { autocovariance, decompose });
  ui.undo.push(() => worker.stop());

  // The picture.
  const kernelPanel = kernels(ui);
  const photoPanel = comparison();
  const sectionBox = make("div", { class: "nd-section" });
  ui.picture.append(kernelPanel.root, photoPanel.root);
  ui.more.append(sectionBox);
  const section = plot(sectionBox, "Weights along one row of the kernel", (width) => crossSection(now, width));
  ui.undo.push(section.destroy);

  // The controls.
  const source = choice(ui, {
    trait: "source",
    label: "statistics of",
    options: [["images", model.get("title")], ["photograph", "your picture"]],
  });
  const colours = model.get("colours").byteLength ? COLOURS.map((name) => [name, name]) : [];
  choice(ui, { trait: "channel", label: "output", options: [["luminance", "grey"], ...colours] });
  const images = slider(ui, {
    trait: "count",
    label: "images",
    min: 0,
    max: counts.length - 1,
    format: (count) => count.toLocaleString("en"),
    toValue: (position) => counts[position],
    toPosition: (count) => counts.indexOf(count),
  });
  const size = slider(ui, {
    trait: "patch_size",
    label: "patch",
    min: 3,
    max: 15,
    step: 2,
    format: (k) => `${k} × ${k}`,
  });
  logSlider(ui, { trait: "eps", label: "eps", from: -8, to: -1, format: (eps) => brief(eps) });
  slider(ui, {
    trait: "steps",
    label: "steps",
    min: 1,
    max: EXACT,
    format: (steps) => (steps === null ? "exact" : String(steps)),
    toValue: (position) => (position === EXACT ? null : position),
    toPosition: (steps) => steps ?? EXACT,
  });

  // These leave the picture of the reader's own as it is; the two that count images are there without one.
  const most = counts[counts.length - 1];
  const start = { patch_size: 15, eps: 1e-5, channel: "luminance" };
  preset(ui, "Exact root", { ...start, steps: null });
  preset(ui, "5 steps", { ...start, steps: 5 });
  const counted = [preset(ui, `${most.toLocaleString("en")} image${most === 1 ? "" : "s"}`, { count: most })];
  if (most > 1) counted.push(preset(ui, "One image", { count: counts[0] }));
  if (colours.length) preset(ui, "Colours", { ...start, steps: null, patch_size: 9, channel: "red" });
  const own = ownPictures(ui, { area: AREA, use: useOwn });
  reset(ui, TRAITS, () => {
    own.forget();
    photo.own = null;
    held = null;
    holdBox.checked = false;
    refreshSoon();
  });
  let held = null; // what the full colour stands for, while it is held
  const holdBox = make("input", { type: "checkbox", "data-lm-suppress-shortcuts": "true" });
  holdBox.addEventListener("change", () => {
    held = holdBox.checked ? now.limit : null;
    refreshSoon();
  });
  ui.controls.append(make("div", { class: "nd-checks" }, make("label", {}, holdBox, "hold the colours’ scale")));

  // The photograph that is filtered: the widget's own, or the reader's.
  const photo = { given: null, own: null };
  const prepare = ({ planes, width, height }) => ({
    planes,
    width,
    height,
    grey: [mirrored(luminance(planes), width, height, MARGIN)],
    colour: planes.map((plane) => mirrored(plane, width, height, MARGIN)),
  });
  decode(model.get("photo"), "image/jpeg").then((picture) => {
    photo.given = prepare(picture);
    refreshSoon();
  }, failed);

  async function useOwn(picture, wanted) {
    const { planes, width, height } = picture;
    const grey = await worker.run("autocovariance", [luminance(planes)], width, height, REACH.grey);
    const colour = await worker.run("autocovariance", planes, width, height, REACH.colour);
    if (!wanted()) return;
    photo.own = prepare(picture);
    known.clear();
    change(model, {
      own_luminance: packed(grey, REACH.grey),
      own_colours: packed(colour, REACH.colour),
      source: "photograph",
    });
    refreshSoon();
  }

  function failed(error) {
    ui.complain(`The kernel cannot be shown: ${error.message}`);
    console.error(error);
  }

  // From traits to pictures. An eigendecomposition belongs to a source, a count, a size and a kind; eps and steps need
  // no other. While one is made the picture before stays; of several wishes only the last one counts.
  const known = new Map();
  let busy = false;
  let now = null;

  function refresh() {
    if (model.get("patch_size") > reachOf(model) + 1) {
      change(model, { patch_size: reachOf(model) + 1 });
      return; // that change calls back
    }
    const key = TRAITS.filter((trait) => !["eps", "steps", "channel"].includes(trait)).map((trait) => model.get(trait));
    key.push(isGrey(model));
    const name = key.join(" ");
    if (known.has(name)) show(known.get(name));
    else if (!busy) ask(name);
  }

  async function ask(name) {
    busy = true;
    try {
      const began = performance.now();
      const { tables, reach } = statistics(model);
      known.set(name, await worker.run("decompose", tables, reach, model.get("patch_size")));
      ui.root.decomposition = performance.now() - began;
      if (known.size > 24) known.delete(known.keys().next().value);
      refreshSoon();
    } catch (error) {
      failed(error);
    } finally {
      busy = false;
    }
  }

  function show(decomposition) {
    const began = performance.now();
    const { k } = decomposition;
    const output = Math.max(0, COLOURS.indexOf(model.get("channel")));
    const gains = gainsOf(decomposition, model.get("steps"), model.get("eps"));
    const found = kernelsOf(decomposition, gains, output);
    // Full colour is a third of the centre's weight: one that would be the whole of it would hide the ring.
    const limit = held ?? found[output % found.length][(k * k - 1) / 2] / 3;
    now = { k, output, kernels: found, limit, pick: kernelPanel.pick(k) };
    ui.root.kernels = found; // what is drawn, for tests and for the curious
    kernelPanel.show(now);
    section.draw();
    const picture = photo.own ?? photo.given;
    if (picture) photoPanel.show(picture, filtered(found.length === 1 ? picture.grey : picture.colour, found, k));
    ui.say(inWords(now, model, images.input.disabled));
    ui.root.milliseconds = performance.now() - began; // for the benchmark, as is the time of a decomposition
  }

  const refreshSoon = oncePerFrame(refresh);
  const showPick = oncePerFrame(() => {
    if (!now) return;
    now.pick = kernelPanel.pick(now.k);
    kernelPanel.show(now);
    section.draw();
  });
  kernelPanel.onPick(showPick);
  function adapt() {
    size.setRange(3, reachOf(model) + 1);
    source.box.hidden = model.get("own_luminance").byteLength === 0;
    images.input.disabled = model.get("source") === "photograph";
    counted.forEach((button) => (button.hidden = images.input.disabled));
  }
  ui.onChange([...TRAITS, "own_luminance"], adapt);
  ui.onChange(TRAITS, refreshSoon);
  ui.onChange(["own_luminance", "own_colours", "luminance", "colours"], () => {
    known.clear();
    refreshSoon();
  });
  adapt();
  refresh();
  return ui.destroy;
}

// The kernels, one from each input colour, and the pixel of them that the reader points at.
function kernels(ui) {
  const root = make("div", { class: "nd-kernel-panel" });
  const grid = make("div", {
    class: "nd-kernels",
    tabindex: "0",
    role: "group",
    "aria-label": "The kernel. Arrow keys move over its pixels, whose weights are read below.",
    "data-lm-suppress-shortcuts": "true",
  });
  const bar = signedBar();
  const ends = [make("span"), make("span", {}, "0"), make("span")];
  const value = make("p", { class: "nd-value", "aria-live": "polite" });
  root.append(grid, make("div", { class: "nd-scale" }, bar, make("div", { class: "nd-ends" }, ...ends)), value);

  const picked = { dy: 0, dx: 0 };
  let k = 15;
  let listener;
  const move = (dy, dx) => {
    const half = (k - 1) / 2;
    const clamp = (v) => Math.min(half, Math.max(-half, v));
    Object.assign(picked, { dy: clamp(dy), dx: clamp(dx) });
    listener();
  };
  const at = (event) => {
    const canvas = event.target.closest(".nd-kernel")?.querySelector("canvas");
    if (!canvas) return;
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const cell = (offset, length) => Math.floor((offset / length) * k) - (k - 1) / 2;
    move(cell(event.clientY - top, height), cell(event.clientX - left, width));
  };
  grid.addEventListener("pointermove", at);
  grid.addEventListener("pointerdown", at);
  onArrows(grid, ([dx, dy]) => move(picked.dy + dy, picked.dx + dx), () => move(0, 0));

  function build(count, output) {
    const titles = count === 1 ? [""] : COLOURS.map((name) => `${name} → ${COLOURS[output]}`);
    ui.picture.classList.toggle("nd-three", count === 3);
    grid.replaceChildren(
      ...titles.map((title) => {
        const box = make("div", { class: "nd-kernel" }, make("canvas", { role: "img" }), make("div", { class: "nd-cell" }));
        return make("div", {}, box, ...(title ? [make("div", { class: "nd-caption" }, title)] : []));
      }),
    );
  }

  return {
    root,
    onPick: (callback) => (listener = callback),
    pick(size) {
      k = size;
      const half = (k - 1) / 2;
      return { dy: Math.min(half, Math.max(-half, picked.dy)), dx: Math.min(half, Math.max(-half, picked.dx)) };
    },
    show({ k, output, kernels: found, limit, pick }) {
      const kind = `${found.length} ${output}`;
      if (grid.dataset.kind !== kind) build(found.length, output);
      grid.dataset.kind = kind;
      const half = (k - 1) / 2;
      const index = (pick.dy + half) * k + pick.dx + half;
      grid.querySelectorAll(".nd-kernel").forEach((box, i) => {
        const [canvas, cell] = box.children;
        paintSigned(canvas, found[i], k, limit);
        const name = found.length === 1 ? "Kernel" : `Kernel from ${COLOURS[i]} to ${COLOURS[output]}`;
        canvas.setAttribute("aria-label", `${name}, ${k} by ${k} pixels; centre ${brief(found[i][(k * k - 1) / 2])}`);
        cell.classList.toggle("nd-centre", pick.dx === 0 && pick.dy === 0);
        const place = { width: 1, height: 1, left: pick.dx + half, top: pick.dy + half };
        for (const [side, cells] of Object.entries(place)) cell.style[side] = `${(100 * cells) / k}%`;
      });
      ends[0].textContent = `≤ ${brief(-limit)}`;
      ends[2].textContent = `≥ ${brief(limit)}`;
      const weights = found.map((kernel) => brief(kernel[index], 3));
      const shown = found.length === 1 ? weights[0] : COLOURS.map((name, i) => `${name} ${weights[i]}`).join(", ");
      value.textContent = `Weight ${where(pick)}: ${shown}`;
    },
  };
}

function where({ dy, dx }) {
  const parts = [];
  if (dy) parts.push(`${Math.abs(dy)} ${dy < 0 ? "up" : "down"}`);
  if (dx) parts.push(`${Math.abs(dx)} ${dx < 0 ? "left" : "right"}`);
  return parts.length ? parts.join(", ") : "of the centre";
}

// The photograph, and from the divider on what the kernel makes of it.
function comparison() {
  const before = make("canvas", { role: "img", "aria-label": "The photograph" });
  const after = make("canvas", { role: "img", "aria-label": "The photograph, filtered with the kernel" });
  const line = make("div", { class: "nd-divider" });
  const slide = make("input", { type: "range", min: 0, max: 100, value: 40, "data-lm-suppress-shortcuts": "true" });
  slide.setAttribute("aria-label", "Divider between the photograph and what the kernel makes of it");
  const box = make("div", { class: "nd-compare" }, before, after, line, slide);
  const captions = make("div", { class: "nd-captions" });
  captions.append(make("span", {}, "photograph"), make("span", {}, "filtered, ±3 σ"));
  const wipe = () => box.style.setProperty("--nd-divide", `${slide.value}%`);
  slide.addEventListener("input", wipe);
  wipe();
  draggable(box, (event) => {
    const { left, width } = box.getBoundingClientRect();
    slide.value = (100 * (event.clientX - left)) / width;
    wipe();
  });
  let shown = null;
  return {
    root: make("div", { class: "nd-photo-panel" }, box, captions),
    show(picture, values) {
      if (shown !== picture) paintColour(before, picture.planes, picture.width);
      shown = picture;
      const deviation = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
      paintGrey(after, values, picture.width, -3 * deviation, 3 * deviation);
    },
  };
}

function crossSection(now, width) {
  const height = 170;
  if (!now) return { height, x: { domain: [0, 1] }, y: { domain: [0, 1] }, marks: [] };
  const { k, output, kernels: found, pick } = now;
  const half = (k - 1) / 2;
  const rows = found.map((kernel) => Array.from({ length: k }, (_, i) => [i - half, kernel[(pick.dy + half) * k + i]]));
  const all = found.flatMap((kernel) => Array.from(kernel));
  const low = Math.min(...all);
  const high = Math.max(...all);
  const range = [low - 0.12 * (high - low), high + 0.08 * (high - low)];
  const ticks = Array.from({ length: k }, (_, i) => ({ at: i - half, text: `${i - half}`.replace("-", "−") }));
  const row = pick.dy ? `the row ${where({ dy: pick.dy, dx: 0 })}` : "the middle row";
  const inks = found.length === 1 ? [COLORS.nd] : INKS;
  const marks = [{ line: [[-half - 0.5, 0], [half + 0.5, 0]], color: "var(--nd-muted)", width: 1 }];
  marks.push({ line: [[pick.dx, range[0]], [pick.dx, range[1]]], color: "var(--nd-pick)", width: 1, dash: "1 3" });
  rows.forEach((points, i) => {
    marks.push({ line: points, color: inks[i], width: found.length === 1 || i === output ? 2 : 1.5 });
    marks.push({ dots: points, color: inks[i], radius: 3 });
    marks.push({ dots: [points[pick.dx + half]], color: "var(--nd-pick)", radius: 4.5 });
  });
  if (found.length === 3) {
    // The names stand below each other at the right, in the order of the curves' middles.
    const order = [0, 1, 2].sort((a, b) => found[b][(k * k - 1) / 2] - found[a][(k * k - 1) / 2]);
    order.forEach((i, place) => {
      const color = `color-mix(in srgb, ${INKS[i]} 70%, var(--nd-ink))`;
      marks.push({ text: `from ${COLOURS[i]}`, at: [half + 0.5, range[1]], color, anchor: "end", dy: 14 + 16 * place });
    });
  }
  const every = width < 420 && k > 9 ? 2 : 1;
  return {
    height,
    x: { domain: [-half - 0.5, half + 0.5], label: "pixels from the centre", ticks: ticks.filter((_, i) => (i - half) % every === 0) },
    y: { domain: range, label: `weight along ${row}${width < 420 ? "" : ", per unit of pixel value"}`, ticks: roundTicks(range, 4) },
    marks,
  };
}

function inWords({ k, output, kernels: found }, model, own) {
  const from = own ? "your picture" : `${model.get("count").toLocaleString("en")} ${model.get("count") === 1 ? "image" : "images"}`;
  const steps = model.get("steps");
  const how = steps === null ? "exact" : `${steps} Newton-Schulz step${steps === 1 ? "" : "s"}`;
  const centre = found[output % found.length][(k * k - 1) / 2];
  const ratio = surround(found[output % found.length]);
  const ring = ratio > -0.05 ? "hardly any surround, nearly a single pixel" : ratio > -0.15 ? "a weak surround" : "a clear centre and surround";
  let text = `From ${from}, ${k} × ${k}, ${how}: the centre weighs ${brief(centre, 3)}, the least weight is ${brief(ratio)} of that: ${ring}.`;
  if (found.length === 3) {
    const others = [0, 1, 2].filter((i) => i !== output);
    const weights = others.map((i) => `${COLOURS[i]} ${brief(found[i][(k * k - 1) / 2] / centre)}`).join(", ");
    const opposed = others.every((i) => found[i][(k * k - 1) / 2] < -0.05 * centre);
    text += ` At the centre the other colours count ${weights} of it${opposed ? ": the colours oppose each other" : ""}.`;
  }
  return text;
}

export default { render };

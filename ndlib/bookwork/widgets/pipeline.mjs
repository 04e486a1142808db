// One picture all the way through a deconvolution layer, stage by stage: what is pointed at in one is lit in all others.

import { brief, make, oncePerFrame, paintGrey, paintSigned, signedBar } from "./draw.mjs";
import { change, choice, draggable, frame, logSlider, onArrows, preset, reset, settable, slider } from "./controls.mjs";
import { SIDE, disturbed, flow, likeness, statisticsOf } from "./flow.mjs";
import { middleSquare } from "./fourier.mjs";
import { luminance, ownPictures } from "./photograph.mjs";

const OWN = "own"; // the reader's picture, which is no trait: it stays here
const AREA = 640 * 640; // pixels that are read of it
const TRAITS = ["photograph", "k", "w", "eps", "steps", "blur", "noise", "row", "column", "other", "direction", "stage"];
const EXACT = 21; // the place after 20 steps on the slider
const EXCERPT = 21; // rows of X that are shown
const HEIGHT = 24; // cells of the spectrum, upwards
const DECADES = 5; // of variance that it shows

/** The stages: name on the button, title of the enlarged picture, and what happens there. */
const STAGES = {
  picture: ["photo", "The picture", "A photograph, grey, 64 pixels a side. Neighbouring pixels are alike, so most of what it says is said many times."],
  window: ["patch", "One window", "A convolution looks at it through a small window. These are the numbers that it sees there."],
  x: ["X", "Rows of X", "The numbers of a window, written in one line, are a row of X. Each place of the window gives a row."],
  cov: ["Cov", "Covariance of the columns", "Two columns of X are two pixels of the window. Their covariance says how far they go together: red nearly everywhere."],
  spectrum: ["λ", "Variance by direction", "Seen along the right directions, the pixels do not go together any more. The first direction is the brightness of the window and has nearly all of the variance; the last ones are fine patterns."],
  d: ["D", "D, the whitening matrix", "D divides each direction by its standard deviation. What was strong is made weak, and what was weak is made strong."],
  w: ["w", "Weights w", "These are the weights of a filter, as a network learns them."],
  dw: ["Dw", "Folded weights Dw", "Whitening first and filtering then is one filter, Dw: a centre and a ring of the other sign."],
  y: ["y", "Output", "What could be guessed from the surroundings is gone, and what is left are outlines. Now blur the picture first: nearly the same comes out. D has undone a blur that nobody told it of. With noise it fails."],
};

function render({ model, el }) {
  const ui = frame(el, {
    model,
    name: "pipeline",
    title: "A picture on its way through a deconvolution layer",
    tryThis: "Press “Blur it first”, and compare the two outputs.",
  });
  const strip = stripOf(ui);
  const large = screen("nd-large", "The enlarged stage. Arrow keys move what is lit.");
  const title = make("div", { class: "nd-title" });
  const bar = signedBar();
  const ends = make("div", { class: "nd-ends" }, make("span"), make("span", {}, "0"), make("span"));
  const side = Object.fromEntries(["in", "out", "sharp"].map((name) => [name, sideView(name)]));
  ui.picture.append(
    strip.root,
    make("div", { class: "nd-view" }, title, large.box, bar, ends),
    make("div", { class: "nd-side" }, ...Object.values(side).map(({ root }) => root)),
  );
  ui.root.querySelector(".nd-stage").append(storyOf(ui, model));

  // The controls.
  const names = model.get("names");
  const photographs = choice(ui, { trait: "photograph", label: "picture", options: [...names.map((name) => [name, name]), [OWN, "your own"]] });
  const ownOption = photographs.inputs[names.length].parentElement;
  choice(ui, { trait: "k", label: "window", options: [3, 5, 7].map((k) => [k, `${k} × ${k}`]) });
  choice(ui, { trait: "w", label: "weights w", options: ["middle", "mean", "edge"].map((w) => [w, w]) });
  slider(ui, { trait: "blur", label: "blur it first", min: 0, max: 2, step: 0.1, format: (s) => (s === 0 ? "no" : `σ ${brief(s)} px`) });
  slider(ui, { trait: "noise", label: "noise", min: 0, max: 0.2, step: 0.01, format: (noise) => (noise === 0 ? "none" : brief(noise)) });
  logSlider(ui, { trait: "eps", label: "eps", from: -8, to: -1, format: (eps) => brief(eps) });
  slider(ui, {
    trait: "steps", label: "steps", min: 1, max: EXACT,
    format: (steps) => (steps === null ? "exact" : String(steps)),
    toValue: (position) => (position === EXACT ? null : position),
    toPosition: (steps) => steps ?? EXACT,
  });
  preset(ui, "Sharp", { blur: 0, noise: 0 });
  preset(ui, "Blur it first", { blur: 0.8, noise: 0, stage: "y", w: "middle", steps: null, eps: 1e-8 });
  preset(ui, "Blur, then noise", { blur: 0.8, noise: 0.05, stage: "y", w: "middle", steps: null, eps: 1e-8 });
  preset(ui, "5 steps", { steps: 5, eps: 1e-5, stage: "dw" });
  preset(ui, "Edges", { w: "edge", stage: "dw" });
  const own = ownPictures(ui, { area: AREA, use: useOwn, remark: `Its middle square is shown, grey, with ${SIDE} × ${SIDE} pixels.` });
  reset(ui, TRAITS, () => {
    own.forget();
    mine = null;
    adapt();
  });
  settable(ui, { row: [0, SIDE * SIDE, 1], column: [0, 48, 1], other: [0, 48, 1], direction: [0, 48, 1] });

  let mine = null;
  let version = 0; // of the reader's picture
  function useOwn({ planes, width, height }) {
    mine = middleSquare(luminance(planes), width, height, SIDE);
    version += 1;
    adapt();
    change(model, { photograph: OWN });
    updateSoon();
  }
  const adapt = () => (ownOption.hidden = mine === null);

  // What depends on fewer things is kept while the others change.
  const kept = new Map();
  function keep(name, needs, make) {
    const key = needs.join(" ");
    if (kept.get(name)?.key !== key) kept.set(name, { key, value: make() });
    return kept.get(name).value;
  }

  let now;
  function update() {
    const began = performance.now();
    if (model.get("photograph") === OWN && !mine) return change(model, { photograph: names[0] }); // that calls back
    const [photograph, k, w, eps, steps, blur, noise] = TRAITS.map((trait) => model.get(trait));
    const source = [photograph, photograph === OWN ? version : 0];
    const sharp = keep("sharp", source, () => photographOf(model, photograph, mine));
    const pixels = keep("pixels", [...source, blur, noise], () => disturbed(sharp, blur, noise));
    const statistics = keep("statistics", [...source, blur, noise, k], () => statisticsOf(pixels, k));
    const changed = blur > 0 || noise > 0;
    const reference = changed ? keep("reference", [...source, k], () => statisticsOf(sharp, k)) : statistics;
    const settings = { steps, eps, w };
    const whole = keep("flow", [...source, blur, noise, k, w, eps, steps], () => flow(statistics, settings));
    const sharpY = changed ? keep("sharpY", [...source, k, w, eps, steps], () => flow(reference, settings).y) : whole.y;
    const end = (trait, count) => Math.min(model.get(trait), count - 1);
    const places = SIDE - k + 1;
    now = {
      ...whole, pixels, places, blur, noise, changed, sharpY, stage: model.get("stage"),
      row: end("row", places * places), column: end("column", k * k), other: end("other", k * k), direction: end("direction", k * k),
      like: changed ? likeness(whole.y, sharpY) : 1,
    };
    show();
    Object.assign(ui.root, { flow: now }); // what is drawn, for tests and for the curious
    ui.root.milliseconds = performance.now() - began; // for the benchmark
  }
  function show() {
    const views = viewsOf(now);
    for (const [name, view] of Object.entries(views)) strip.screens[name].show(view);
    const view = views[now.stage];
    large.show(view);
    title.textContent = STAGES[now.stage][1];
    bar.hidden = view.black !== undefined || view.plain;
    ends.hidden = bar.hidden;
    ends.firstChild.textContent = brief(-view.limit);
    ends.lastChild.textContent = brief(view.limit);
    side.in.show({ values: now.pixels, width: SIDE, black: 0, limit: 1 }, "input");
    side.out.show(views.y, "output");
    side.sharp.root.hidden = !now.changed;
    const most = spreadOf(now.sharpY);
    if (now.changed) side.sharp.show({ ...views.y, values: now.sharpY, black: -most, limit: most }, "if sharp");
    ui.say(inWords(now));
  }
  const updateSoon = oncePerFrame(update);
  ui.onChange(TRAITS.concat("pictures"), updateSoon);

  // Pointers and keys: each stage knows what its cells mean.
  const light = (name, cell) => change(model, meaning(now, name, cell));
  for (const [name, each] of Object.entries(strip.screens)) each.listen(() => viewsOf(now)[name], (cell) => light(name, cell), true);
  large.listen(() => viewsOf(now)[now.stage], (cell) => light(now.stage, cell), false);
  adapt();
  update();
  return ui.destroy;
}

function photographOf(model, name, mine) {
  if (name === OWN) return mine;
  const view = model.get("pictures");
  const size = SIDE * SIDE;
  return Float64Array.from(new Uint8Array(view.buffer, view.byteOffset + model.get("names").indexOf(name) * size, size), (value) => value / 255);
}

// Stages as pictures. -----------------------------------------------------------------------------------------------

const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
const spreadOf = (values) => 3 * Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length) || 1;

// Of each stage its values, how wide they lie, their scale, what is lit as [kind, left, top, width, height] in cells, and
// the cell that keys move from. Grey ones have a `black`, signed ones are black-less: 0 is the paper.
function viewsOf({ pixels, places, k, n, matrix, covariance, variances, root, weights, folded, y, row, column, other, direction }) {
  const [left, top] = [row % places, Math.floor(row / places)];
  const tap = (i) => [i % k, Math.floor(i / k)];
  const pair = [["nd-tap0", ...tap(column), 1, 1], ["nd-tap1", ...tap(other), 1, 1]];
  const first = Math.max(0, Math.min(row - (EXCERPT - 1) / 2, places * places - EXCERPT));
  const part = new Float64Array(n);
  for (let i = 0; i < n; i++) part[i] = matrix[row * n + i];
  const entry = [["nd-window", other, column, 1, 1]];
  const small = (values) => ({ values, width: k, limit: largest(values), marks: pair, at: tap(column), numbers: true });
  return {
    picture: {
      values: pixels, width: SIDE, black: 0, limit: 1, at: [left, top],
      marks: [["nd-window", left, top, k, k], ...pair.map(([kind, x, y]) => [kind, left + x, top + y, 1, 1])],
    },
    window: { ...small(part), black: 0, limit: 1 },
    x: {
      values: matrix.subarray(first * n, (first + EXCERPT) * n), width: n, black: 0, limit: 1, at: [column, row - first], first,
      marks: [["nd-window", 0, row - first, n, 1], ["nd-tap0", column, 0, 1, EXCERPT], ["nd-tap1", other, 0, 1, EXCERPT]],
    },
    cov: { values: covariance, width: n, limit: largest(covariance), marks: entry, at: [other, column] },
    spectrum: { ...bars(variances), width: n, limit: 1, plain: true, marks: [["nd-window", direction, 0, 1, HEIGHT]], at: [direction, 0] },
    d: { values: root, width: n, limit: largest(root), marks: entry, at: [other, column] },
    w: small(weights),
    dw: small(folded),
    y: { values: y, width: places, black: -spreadOf(y), limit: spreadOf(y), marks: [["nd-window", left, top, 1, 1]], at: [left, top] },
  };
}

// Variances as columns on a logarithmic scale.
function bars(variances) {
  const n = variances.length;
  const values = new Float64Array(n * HEIGHT).fill(NaN);
  variances.forEach((variance, e) => {
    const height = 1 + Math.log10(Math.max(variance / variances[0], 1e-30)) / DECADES;
    const cells = Math.max(1, Math.round(height * HEIGHT));
    for (let c = 0; c < cells; c++) values[(HEIGHT - 1 - c) * n + e] = -0.75;
  });
  return { values };
}

// What a cell of a stage stands for, as traits.
function meaning({ places, k }, name, [x, y, first = 0]) {
  if (name === "picture") return { row: Math.min(y, places - 1) * places + Math.min(x, places - 1) };
  if (name === "y") return { row: y * places + x };
  if (name === "x") return { row: first + y, column: x };
  if (name === "spectrum") return { direction: x };
  if (name === "cov" || name === "d") return { column: y, other: x };
  return { column: y * k + x };
}

// A canvas with marks on it; `listen` calls back with the cell that a pointer or an arrow key leads to.
function screen(name, label) {
  const canvas = make("canvas", label ? { role: "img", "aria-label": "" } : { "aria-hidden": "true" });
  const digits = make("div", { class: "nd-digits", "aria-hidden": "true" });
  const box = make("div", { class: `nd-cells ${name}` }, canvas, digits);
  if (label) for (const [key, value] of Object.entries({ tabindex: "0", role: "group", "aria-label": label, "data-lm-suppress-shortcuts": "true" })) box.setAttribute(key, value);
  const marks = [];
  let shown = null;
  return {
    box,
    show(view) {
      const { values, width, black, limit, numbers } = view;
      if (shown !== values) {
        if (black === undefined) paintSigned(canvas, values, width, numbers ? 1.6 * limit : limit);
        else paintGrey(canvas, values, width, numbers ? -0.6 : black, limit);
      }
      shown = values;
      const height = values.length / width;
      while (marks.length < view.marks.length) marks.push(box.appendChild(make("div")));
      marks.forEach((mark, i) => {
        const [kind, ...place] = view.marks[i] ?? [];
        mark.className = `nd-mark ${kind}`;
        mark.hidden = !kind;
        if (kind) ["left", "top", "width", "height"].forEach((at, s) => (mark.style[at] = `${(100 * place[s]) / (s % 2 ? height : width)}%`));
      });
      const few = label && numbers ? Array.from(values) : [];
      digits.style.gridTemplateColumns = `repeat(${width}, 1fr)`;
      digits.classList.toggle("nd-on-colours", black === undefined);
      digits.replaceChildren(...few.map((value) => make("span", {}, brief(value))));
      if (label) canvas.setAttribute("aria-label", `${width} by ${height} values${black === undefined && !view.plain ? `, from ${brief(-limit)} to ${brief(limit)}` : ""}`);
    },
    listen(view, light, hover) {
      const within = ([x, y]) => {
        const { values, width, first } = view();
        light([Math.min(width - 1, Math.max(0, x)), Math.min(values.length / width - 1, Math.max(0, y)), first]);
      };
      const follow = (event) => {
        const { left, top, width, height } = canvas.getBoundingClientRect();
        const { values, width: across, marks: [[, , , span]] } = view();
        const grip = values.length === SIDE * SIDE ? (span - 1) / 2 : 0; // the window is taken by its middle
        within([Math.floor(((event.clientX - left) / width) * across - grip), Math.floor(((event.clientY - top) / height) * (values.length / across) - grip)]);
      };
      if (!hover) draggable(box, follow);
      box.addEventListener("pointermove", (event) => event.pointerType === "mouse" && !event.buttons && follow(event));
      if (label) onArrows(box, ([x, y]) => within([view().at[0] + x, view().at[1] + y]));
    },
  };
}

// All stages in a row, each a button that enlarges it.
function stripOf(ui) {
  const name = `nd-${Math.random().toString(36).slice(2)}`;
  const root = make("div", { class: "nd-strip", role: "radiogroup", "aria-label": "Stages" });
  const screens = {};
  const inputs = Object.entries(STAGES).map(([stage, [text]]) => {
    const input = make("input", { type: "radio", name, value: stage, "aria-label": STAGES[stage][1], "data-lm-suppress-shortcuts": "true" });
    input.addEventListener("change", () => change(ui.model, { stage }));
    screens[stage] = screen("nd-thumb", "");
    root.append(make("label", {}, input, screens[stage].box, make("span", {}, text)));
    return input;
  });
  const show = () => inputs.forEach((input) => (input.checked = input.value === ui.model.get("stage")));
  ui.onChange(["stage"], show);
  show();
  ui.root.settings.set("stage", (text) => (text in STAGES ? text : undefined));
  return { root, screens };
}

function sideView(name) {
  const view = screen(`nd-side-${name}`, "");
  const caption = make("span", {});
  return {
    root: make("div", {}, view.box, caption),
    show(shown, text) {
      caption.textContent = text;
      view.show({ ...shown, marks: [] });
    },
  };
}

// The text below: a stage is enlarged when its paragraph has been scrolled to.
function storyOf(ui, model) {
  const root = make("ol", { class: "nd-story" });
  const parts = new Map(Object.entries(STAGES).map(([stage, [, heading, text]]) => {
    const part = make("li", { "data-stage": stage }, make("strong", {}, `${heading}. `), text);
    root.append(part);
    return [part, stage];
  }));
  // As long as the picture is held in the window: before that the text is not what is being read.
  const held = () => ui.picture.getBoundingClientRect().top > ui.picture.parentElement.getBoundingClientRect().top + 5;
  const watcher = new IntersectionObserver((entries) => {
    const there = entries.filter((entry) => entry.isIntersecting).at(-1);
    if (there && held()) change(model, { stage: parts.get(there.target) });
  }, { rootMargin: "-75% 0px -20% 0px" }); // a line in the lower part of the window, below the picture
  parts.forEach((_, part) => watcher.observe(part));
  ui.undo.push(() => watcher.disconnect());
  const show = () => parts.forEach((stage, part) => part.classList.toggle("nd-now", stage === model.get("stage")));
  ui.onChange(["stage"], show);
  show();
  return root;
}

// Words. ------------------------------------------------------------------------------------------------------------

function inWords(now) {
  const { k, n, places, matrix, mean, covariance, centred, variances, directions, gains, root, weights, folded, y, row, column, other, direction } = now;
  const [i, j] = [column + 1, other + 1];
  const at = row * n;
  const entry = column * n + other;
  const rows = (places * places).toLocaleString("en");
  const parts = gains.map((gain, e) => gain * directions[e][column] * directions[e][other]);
  const strongest = parts.reduce((best, part, e) => (Math.abs(part) > Math.abs(parts[best]) ? e : best), 0);
  const said = {
    picture: () => `The window ${Math.floor(row / places) + 1} from the top and ${(row % places) + 1} from the left is row ${row + 1} of X.`,
    window: () => `Pixel ${i} of the window: ${brief(matrix[at + column])}, where 0 is black and 1 is white.`,
    x: () => `X has ${rows} rows, one a window, and ${n} columns, one a pixel. Row ${row + 1}, column ${i}: ${brief(matrix[at + column], 3)}. The mean of the column is ${brief(mean[column], 3)}.`,
    cov: () => `Covariance of pixels ${i} and ${j}: ${brief(covariance[entry], 3)}, the mean of (x${sub(i)} − μ${sub(i)})(x${sub(j)} − μ${sub(j)}) over ${rows} rows. In the lit row it is ${brief(centred[at + column], 2)} × ${brief(centred[at + other], 2)} = ${brief(centred[at + column] * centred[at + other], 2)}.`,
    spectrum: () => `Direction ${direction + 1} of ${n} has the variance ${brief(variances[direction], 3)}; D multiplies it by ${brief(gains[direction], 3)}. After that its variance is ${brief(variances[direction] * gains[direction] ** 2, 2)}.`,
    d: () => `D of pixels ${i} and ${j}: ${brief(root[entry], 3)}, a sum over ${n} directions. The largest part is that of direction ${strongest + 1}: ${brief(gains[strongest], 2)} × ${brief(directions[strongest][column], 2)} × ${brief(directions[strongest][other], 2)} = ${brief(parts[strongest], 2)}.`,
    w: () => `The weight of pixel ${i} is ${brief(weights[column], 3)}.`,
    dw: () => `Dw of pixel ${i} is ${brief(folded[column], 3)}: row ${i} of D times w. Its middle has ${brief(folded[(n - 1) / 2], 3)}, and the least of its ${k} × ${k} weights is ${brief(Math.min(...folded), 3)}.`,
    y: () => `Here y = ${brief(y[row], 3)}: the sum of (x − μ)(Dw) over the ${n} pixels of the window.`,
  }[now.stage]();
  if (!now.changed) return said;
  const like = now.like > 0.9 ? "D undoes the blur" : now.like > 0.6 ? "D undoes a part of it" : "D cannot undo this";
  return `${said} The output resembles that of the sharp picture with a correlation of ${now.like.toFixed(2)}: ${like}.`;
}

const sub = (number) => [...String(number)].map((digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]).join("");

export default { render };

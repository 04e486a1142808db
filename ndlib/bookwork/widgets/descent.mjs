// Gradient descent on a least-squares problem with two weights: a valley, and the same one deconvolved.

import { COLORS, brief, decades, make, oncePerFrame, plot, roundTicks } from "./draw.mjs";
import { change, draggable, frame, onArrows, preset, reset, settable, slider } from "./controls.mjs";
import { BEST, STEPS, covarianceOf, deconvolvedPath, deconvolvedStepsToHundredth, inputs, loss, plainPath, rates, stepsToHundredth } from "./gradient-descent.mjs";
import { principal } from "./pairs.mjs";

const TRAITS = ["correlation", "scale", "rate", "w1", "w2"];
const MOST = 0.99; // of a correlation
const WEIGHTS = [-2, 4]; // either weight in the picture
const CLOUD = 3.4; // standard deviations that the cloud's picture reaches
const LOSSES = [1e-7, 30]; // as a share of the loss at the start
const RUN = 4000; // milliseconds of the movement along the paths
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// Made once: numbers as text are slow.
const WEIGHT_TICKS = roundTicks(WEIGHTS, 6);
const STEP_TICKS = roundTicks([0, STEPS], 3);
const LOSS_TICKS = decades(LOSSES, 4);

function render({ model, el }) {
  const ui = frame(el, {
    model,
    name: "descent",
    title: "Gradient descent with two weights, plain and deconvolved",
    tryThis: "Drag the start to the far end of the valley, and press Play.",
  });
  const own = (name, label) =>
    make("div", { class: name, tabindex: "0", role: "group", "aria-label": label, "data-lm-suppress-shortcuts": "true" });
  const valleyBox = own("nd-valley", "The two weights. Arrow keys move the start of both paths.");
  const cloudBox = own("nd-inputs", "The two inputs. Arrow keys change their correlation.");
  const lossBox = make("div", { class: "nd-losses" });
  ui.picture.append(valleyBox, lossBox);
  ui.more.append(cloudBox, make("p", {}, "The cloud is the inputs. Drag its ring: the narrower the cloud, the narrower the valley above."));

  const signed = (value) => value.toFixed(2).replace("-", "−");
  slider(ui, { trait: "correlation", label: "correlation", min: -MOST, max: MOST, step: 0.01, format: signed });
  slider(ui, { trait: "scale", label: "scales", min: 0.2, max: 1, step: 0.05, format: (scale) => `1 : ${scale.toFixed(2)}` });
  slider(ui, { trait: "rate", label: "learning rate", min: 0.02, max: 2.2, step: 0.02, format: (rate) => rate.toFixed(2) });
  const start = { w1: model.get("w1"), w2: model.get("w2") };
  preset(ui, "Play", {});
  preset(ui, "Independent", { correlation: 0, scale: 1, rate: 0.3 });
  preset(ui, "Neighbours", { correlation: 0.95, scale: 1, rate: 0.3 });
  preset(ui, "One step", { correlation: 0.95, scale: 1, rate: 1 });
  preset(ui, "Too fast", { correlation: 0.95, scale: 1, rate: 1.1, ...start });
  preset(ui, "Unequal scales", { correlation: 0, scale: 0.2, rate: 1 });
  for (const button of ui.presets.children) button.addEventListener("click", play);
  reset(ui, TRAITS);
  settable(ui, { w1: [...WEIGHTS, 0.01], w2: [...WEIGHTS, 0.01] });

  // The paths are walked along, ever faster, as the last steps are the smallest; `walked` is how many steps are drawn.
  let began = null;
  let walked = STEPS;
  const step = oncePerFrame(() => {
    const part = Math.min(1, (performance.now() - began) / RUN);
    if (walked === STEPS && part < 1) walked = 0;
    const next = Math.round(STEPS * part ** 2);
    if (next !== walked || next === 0) [valley, losses].forEach((each) => ((walked = next), each.draw()));
    ui.root.walked = walked;
    if (part < 1) step();
    else began = null;
  });
  function play() {
    if (calm()) return;
    began = performance.now();
    step();
  }

  let now; // everything that the pictures show
  const valley = plot(valleyBox, "Contours of the loss over the two weights, and both paths to its minimum", (w) => valleyPlot(now, w, walked));
  const cloud = plot(cloudBox, "Cloud of the two inputs, with the ellipse of two standard deviations", (w) => cloudPlot(now, w));
  const losses = plot(lossBox, "Loss against step, logarithmic, plain and deconvolved", (w) => lossPlot(now, w, walked));
  const plots = [valley, cloud, losses];

  function update() {
    const started = performance.now();
    const [correlation, scale, rate, w1, w2] = TRAITS.map((trait) => model.get(trait));
    const covariance = covarianceOf(correlation, scale);
    const paths = { none: plainPath(covariance, rate, [w1, w2]), nd: deconvolvedPath(covariance, rate, [w1, w2]) };
    const fall = {};
    const first = loss(covariance, [w1, w2]);
    for (const method in paths) fall[method] = paths[method].map((w) => (first ? loss(covariance, w) / first : 0));
    const waiting = { none: stepsToHundredth(covariance, rate, [w1, w2]), nd: deconvolvedStepsToHundredth(rate) };
    now = { correlation, scale, rate, start: [w1, w2], covariance, paths, first, fall, waiting, ...rates(covariance) };
    Object.assign(ui.root, { paths, fall }); // what is drawn, for tests and for the curious
    plots.forEach((each) => each.draw());
    ui.say(inWords(now));
    ui.root.milliseconds = performance.now() - started; // for the benchmark
  }
  const updateSoon = oncePerFrame(update);
  ui.onChange(TRAITS, updateSoon);

  const within = (value, low, high) => Math.round(100 * Math.min(high, Math.max(low, value))) / 100;
  const startAt = (w1, w2) => change(model, { w1: within(w1, ...WEIGHTS), w2: within(w2, ...WEIGHTS) });
  const correlate = (value) => change(model, { correlation: within(value, -MOST, MOST) });
  draggable(valleyBox, (event) => startAt(...valley.point(event)));
  // The grip is the point of the ellipse on the falling diagonal, at 2 sqrt(1 - correlation) standard deviations.
  draggable(cloudBox, (event) => {
    const [x, y] = cloud.point(event);
    correlate(1 - (Math.max(0, x - y / model.get("scale")) ** 2) / 8);
  });
  onArrows(valleyBox, ([x, y]) => startAt(model.get("w1") + x / 10, model.get("w2") - y / 10));
  onArrows(cloudBox, ([x, y]) => correlate(model.get("correlation") + (x - y) / 100));

  // It is walked once when it is seen for the first time.
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.at(-1).isIntersecting) return;
    watcher.disconnect();
    play();
  }, { threshold: 0.6 });
  watcher.observe(valleyBox);
  ui.undo.push(() => watcher.disconnect());

  update();
  return () => {
    plots.forEach((each) => each.destroy());
    ui.destroy();
  };
}

/** The parts of a line that lie in a box, each a line of its own. */
export function clipped(line, [left, right], [bottom, top]) {
  const parts = [];
  let last; // the end of the part that is growing
  for (let i = 1; i < line.length; i++) {
    const [[x, y], [u, v]] = [line[i - 1], line[i]];
    let [enter, leave] = [0, 1];
    for (const [from, by, low, high] of [[x, u - x, left, right], [y, v - y, bottom, top]]) {
      const [a, b] = [(low - from) / by, (high - from) / by];
      if (by === 0) {
        if (from < low || from > high) leave = -1;
        continue;
      }
      enter = Math.max(enter, Math.min(a, b));
      leave = Math.min(leave, Math.max(a, b));
    }
    if (enter > leave) continue;
    const at = (part) => (part === 0 ? [x, y] : part === 1 ? [u, v] : [x + part * (u - x), y + part * (v - y)]);
    if (enter > 0 || last !== i - 1) parts.push([at(enter)]);
    parts.at(-1).push(at(leave));
    last = leave === 1 ? i : undefined;
  }
  return parts;
}

// An ellipse of points c + A^(1/2) (cos, sin) for a covariance A given by its eigenvalues and eigenvectors.
function ellipse(values, vectors, [x, y]) {
  return Array.from({ length: 91 }, (_, i) => {
    const parts = [Math.cos((i * Math.PI) / 45), Math.sin((i * Math.PI) / 45)].map((part, k) => part * Math.sqrt(values[k]));
    return [0, 1].map((axis) => [x, y][axis] + parts[0] * vectors[0][axis] + parts[1] * vectors[1][axis]);
  });
}

const METHODS = [
  { method: "none", color: COLORS.none, ink: "var(--nd-ink-plain)", name: "plain" },
  { method: "nd", color: COLORS.nd, ink: "var(--nd-ink-nd)", name: "deconvolved" },
];

function valleyPlot({ covariance, rate, largest, paths, start }, width, walked) {
  // A weight is as long to the right as upwards; the picture shows more of the one than of the other.
  const height = width < 360 ? 235 : 330;
  const half = ((WEIGHTS[1] - WEIGHTS[0]) / 2) * ((width - 58) / (height - 64));
  const across = [1 - half, 1 + half];
  const { values, vectors } = principal(covariance);
  const inside = (line) => clipped(line, across, WEIGHTS);
  // Losses in the proportion 1 : 4 : 9 ..., between which a straight valley side has equal distances.
  const contours = Array.from({ length: 16 }, (_, i) => {
    const level = 0.045 * (i + 1) ** 2;
    return ellipse(values.map((value) => (2 * level) / value), vectors, BEST);
  });
  const marks = contours.flatMap(inside).map((line) => ({ line, color: "var(--nd-contour)", width: 1 }));
  const names = [];
  for (const { method, color, ink, name } of METHODS) {
    const within = ([x, y]) => x >= across[0] && x <= across[1] && y >= WEIGHTS[0] && y <= WEIGHTS[1];
    const seen = paths[method].map(within);
    const limit = method === "nd" ? 2 : largest;
    const gone = rate > limit && seen.includes(false) ? seen.indexOf(false) : STEPS; // one that diverges leaves for good
    const shown = Math.min(walked, gone);
    const lines = inside(paths[method].slice(0, shown + 1));
    const dots = paths[method].filter((_, i) => seen[i] && i <= shown);
    marks.push(...lines.map((line) => ({ line, color, width: method === "nd" ? 2 : 1.5 })), { dots, color, radius: 3 });
    names.push({ text: seen[shown] ? name : `${name} leaves`, at: dots.at(-1) ?? start, color: ink });
  }
  const [x, y] = start;
  const left = x > 2;
  marks.push(
    { dots: [BEST], color: "var(--nd-ink)", radius: 4 },
    { text: "minimum", at: BEST, color: "var(--nd-ink)", dx: 9, dy: 18 },
    { grip: start, color: "var(--nd-pick)", radius: 6.25 },
    { text: "start", at: [x, y], color: "var(--nd-ink)", dx: left ? -13 : 13, dy: y > 3.6 ? 14 : -6, anchor: left ? "end" : "start" },
    ...apart(names, (height - 64) / 6),
  );
  const ticks = WEIGHT_TICKS;
  return { height, x: { domain: across, label: "weight of input 1", ticks }, y: { domain: WEIGHTS, label: "weight of input 2", ticks }, marks };
}

// The names at the ends of two paths: the plain one's below where both ends meet, and each at the side with more room.
function apart(names, unit) {
  const [plain, nd] = names.map(({ at }) => at);
  const close = Math.abs(plain[1] - nd[1]) * unit < 16 && Math.abs(plain[0] - nd[0]) * unit < 110;
  return names.map((name, i) => {
    const right = name.at[0] > 2.2;
    return { ...name, dx: right ? -9 : 9, dy: close ? [-22, -6][i] : -6, anchor: right ? "end" : "start" };
  });
}

function cloudPlot({ correlation, scale, covariance }, width) {
  const height = width + 6;
  const domain = [-CLOUD, CLOUD];
  const { values, vectors } = principal(covariance);
  const inside = inputs(correlation, scale).filter(([x, y]) => Math.max(Math.abs(x), Math.abs(y)) < CLOUD);
  const reach = Math.sqrt(2 * (1 - correlation));
  const grip = [reach, -scale * reach];
  const ticks = [-2, 0, 2].map((at) => ({ at, text: String(at).replace("-", "−") }));
  return {
    height,
    x: { domain, label: "input 1", ticks },
    y: { domain, label: "input 2", ticks },
    marks: [
      { dots: inside, color: COLORS.none, radius: 1.5, opacity: 0.7 },
      { line: ellipse(values.map((value) => 4 * value), vectors, [0, 0]), color: COLORS.none, width: 2 },
      { grip, color: "var(--nd-pick)", radius: 6.25 },
    ],
  };
}

function lossPlot({ fall: whole, waiting }, width, walked) {
  const fall = Object.fromEntries(Object.entries(whole).map(([method, values]) => [method, values.slice(0, walked + 1)]));
  const height = width > 280 ? 130 : 330; // below the valley, or beside it
  const [low, high] = LOSSES.map(Math.log10);
  const marks = [{ line: [[0, 0.01], [STEPS, 0.01]], color: "var(--nd-ink)", width: 1, dash: "2 4" }];
  const inside = (values) => clipped(values.map((value, i) => [i, Math.log10(Math.max(value, 1e-30))]), [0, STEPS], [low, high]);
  for (const { method, color } of METHODS) {
    marks.push(...inside(fall[method]).map((line) => ({ line: line.map(([i, power]) => [i, 10 ** power]), color, width: 2 })));
    if (waiting[method] <= walked) marks.push({ dots: [[waiting[method], fall[method][waiting[method]]]].filter(([, v]) => v > LOSSES[0]), color, radius: 3.5 });
  }
  const below = whole.none[STEPS] > 0.01;
  marks.push({ text: "1/100", at: [STEPS, 0.01], color: "var(--nd-ink)", dy: below ? 15 : -5, anchor: "end", plain: true });
  const alike = whole.none.every((value, i) => Math.abs(value - whole.nd[i]) < 1e-9);
  for (const { method, ink, name } of METHODS.slice(alike ? 1 : 0)) {
    // Beside the line, before it leaves the picture at whichever side; its place is that of the whole line.
    const seen = whole[method].findIndex((value) => value < 1e-5 || value > 5);
    const long = seen < 0 || seen > STEPS / 2;
    const at = long ? STEPS / 2.5 : Math.max(0, seen - 1);
    const value = Math.min(3, Math.max(1e-6, whole[method][long ? at : seen]));
    const [dx, dy] = long ? [0, method === "nd" ? 18 : -9] : [8, 4];
    marks.push({ text: alike ? "both alike" : name, at: [at, value], color: ink, dx, dy });
  }
  return {
    height,
    x: { domain: [0, STEPS], label: "step", ticks: STEP_TICKS },
    y: { domain: LOSSES, log: true, label: "loss / loss at the start", ticks: LOSS_TICKS },
    marks,
  };
}

const stepsInWords = (steps) => `${steps.toLocaleString("en")} step${steps === 1 ? "" : "s"}`;

function inWords({ first, rate, condition, largest, best, waiting }) {
  if (first === 0) return "The start is the minimum: there is nothing to learn.";
  const at = (limit, steps) => {
    if (rate > limit) return "diverges";
    return steps === Infinity ? "swings to and fro for ever" : `needs ${stepsInWords(steps)} to a hundredth of the loss`;
  };
  return (
    `Learning rate ${rate.toFixed(2)}. Plain gradient descent ${at(largest, waiting.none)}: the condition number is ` +
    `${brief(condition, 3)}, the best rate ${best.toFixed(2)}, the largest stable one ${largest.toFixed(2)}. Deconvolved it ` +
    `${at(2, waiting.nd)}: condition number 1, best rate 1, largest 2.`
  );
}

export default { render };

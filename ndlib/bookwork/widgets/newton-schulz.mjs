// What a few Newton-Schulz steps do to each direction of the data, beside the inverse square root that they stand for.

import { COLORS, brief, decades, make, oncePerFrame, plot, roundTicks } from "./draw.mjs";
import { choice, change, draggable, floats, frame, logSlider, preset, reset, slider } from "./controls.mjs";
import { newtonSchulzResponse, norm } from "./linalg.mjs";

const SIZE = 576; // directions of the made-up spectra: 64 channels, 3 x 3 pixels
const FORMULAS = { flat: () => 1, "1/k": (k) => 1 / k, "1/k²": (k) => 1 / k ** 2 };
const TRAITS = ["steps", "eps", "spectrum", "direction", "photographs", "own"];

/** The variances of the data along their principal directions, the largest first. */
export function spectrumOf(model) {
  const formula = FORMULAS[model.get("spectrum")];
  if (formula) return Float64Array.from({ length: SIZE }, (_, i) => formula(i + 1));
  return floats(model.get(model.get("spectrum")));
}

/** Gains and variances after whitening, of the truncated iteration and of the exact root. */
export function whitened(variances, steps, eps) {
  const eigenvalues = variances.map((variance) => variance + eps);
  const gains = newtonSchulzResponse(eigenvalues, steps);
  return {
    frobenius: norm(eigenvalues),
    gains,
    after: gains.map((gain, k) => gain * gain * variances[k]),
    exact: variances.map((variance, k) => variance / eigenvalues[k]),
  };
}

function median(values) {
  const ordered = Float64Array.from(values).sort();
  const middle = ordered.length / 2;
  return Number.isInteger(middle) ? (ordered[middle - 1] + ordered[middle]) / 2 : ordered[Math.floor(middle)];
}

function render({ model, el }) {
  const ui = frame(el, {
    model,
    name: "newton-schulz",
    title: "What Newton-Schulz steps do to each direction",
    tryThis: "Raise the steps until the blue dots lie on the grey line.",
  });
  const gainBox = make("div", { class: "nd-pick" });
  const varianceBox = make("div", { class: "nd-pick" });
  const before = make("div");
  const after = make("div");
  ui.more.append(before, after);
  ui.picture.append(gainBox, varianceBox);

  const options = Object.keys(FORMULAS).map((name) => [name, name]);
  options.push(["photographs", "photographs"]);
  if (model.get("own").byteLength) options.push(["own", "yours"]);
  choice(ui, { trait: "spectrum", label: "spectrum", options });
  slider(ui, { trait: "steps", label: "steps", min: 0, max: 20, format: String });
  logSlider(ui, { trait: "eps", label: "eps", from: -8, to: -1, format: (eps) => brief(eps) });
  const direction = slider(ui, {
    trait: "direction",
    label: "direction",
    min: 1,
    max: spectrumOf(model).length,
    format: (k) => `no. ${k}`,
  });
  preset(ui, "As published: 5 steps", { steps: 5, eps: 1e-5 });
  preset(ui, "15 steps", { steps: 15, eps: 1e-5 });
  preset(ui, "20 steps, large eps", { steps: 20, eps: 1e-2 });
  reset(ui, ["steps", "eps", "spectrum", "direction"]);

  let now; // everything that the pictures show
  const plots = [
    plot(gainBox, "Gain against variance of the direction, both logarithmic: Newton-Schulz and exact", (w) => gainPlot(now, w)),
    plot(varianceBox, "Variance after whitening against variance before; 1 is white", (w) => variancePlot(now, w)),
    plot(before, "A cloud of data along two directions, before whitening", (w) => cloudPlot(now, w, false)),
    plot(after, "The same cloud after whitening; a circle is white", (w) => cloudPlot(now, w, true)),
  ];

  function update() {
    const began = performance.now();
    const variances = spectrumOf(model);
    const steps = model.get("steps");
    const eps = model.get("eps");
    const k = Math.min(model.get("direction"), variances.length) - 1;
    now = { variances, steps, eps, k, ...whitened(variances, steps, eps) };
    ui.root.gains = now.gains; // what is drawn, for tests and for the curious
    plots.forEach((each) => each.draw());
    ui.say(inWords(now));
    ui.root.milliseconds = performance.now() - began; // for the benchmark
  }
  const updateSoon = oncePerFrame(update);
  ui.onChange(TRAITS, updateSoon);
  ui.onChange(["spectrum", "own"], () => {
    const count = spectrumOf(model).length;
    direction.setRange(1, count);
    if (model.get("direction") > count) change(model, { direction: count });
  });

  const pick = (which) => (event) => {
    const [variance] = plots[which].point(event);
    change(model, { direction: nearest(spectrumOf(model), variance) + 1 });
  };
  draggable(gainBox, pick(0));
  draggable(varianceBox, pick(1));

  update();
  return () => {
    plots.forEach((each) => each.destroy());
    ui.destroy();
  };
}

// The index of the variance nearest on the logarithmic axis; of equal ones the middle one.
function nearest(variances, goal) {
  const distances = Array.from(variances, (v) => Math.abs(Math.log(v / goal)));
  const least = Math.min(...distances);
  const hits = [...distances.keys()].filter((k) => distances[k] === least);
  return hits[Math.floor(hits.length / 2)];
}

// A little more than the variances and at least three decades, so that a flat spectrum too has an axis.
function variancesDomain(variances) {
  const least = variances[variances.length - 1];
  return [Math.min(Math.max(least / 2, variances[0] * 1e-12), variances[0] / 500), variances[0] * 2];
}

function gainPlot({ variances, steps, eps, k, gains, frobenius }, width) {
  const domain = variancesDomain(variances);
  const values = Array.from({ length: 121 }, (_, i) => domain[0] * (domain[1] / domain[0]) ** (i / 120));
  const response = newtonSchulzResponse(values.map((v) => v + eps), steps, frobenius);
  const ideal = values.map((v) => [v, v ** -0.5]);
  const exact = values.map((v) => [v, (v + eps) ** -0.5]);
  const range = [domain[1] ** -0.5 / 3, domain[0] ** -0.5 * 2];
  const curve = values.map((v, i) => [v, response[i]]).filter(([v]) => v + eps < 2 * frobenius); // beyond, it diverges
  const height = width < 330 ? 165 : 230;
  const bent = (domain[0] + eps) ** -0.5 < 0.6 * domain[0] ** -0.5; // then eps has a line of its own at the left
  const below = curve[0][1] > 0.8 * exact[0][1] ? 42 : 20; // pixels: clear of a curve that falls from its start
  const epsName = { text: "with eps", at: exact[0], color: "var(--nd-ink-plain)", dx: 4, dy: -7, plain: true };
  return {
    height,
    x: { domain, log: true, label: width < 330 ? "" : "variance of the direction in the data", ticks: decades(domain, width / 55) },
    box: width < 330 ? { bottom: height - 24 } : {},
    y: { domain: range, log: true, label: "gain of the filter", ticks: decades(range, 6) },
    marks: [
      cursor(variances[k], range),
      { line: ideal, color: COLORS.none, width: 1.5 },
      { line: exact, color: COLORS.none, width: 1.5, dash: "2 4" },
      { line: curve, color: COLORS.nd, width: 2 },
      { dots: Array.from(variances, (v, i) => [v, gains[i]]), color: COLORS.nd, radius: 2.5 },
      { dots: [[variances[k], gains[k]]], color: "var(--nd-pick)", radius: 5 },
      ...(bent ? [epsName] : []),
      { text: "variance^(−½)", at: ideal[20], color: "var(--nd-ink-plain)", dx: 10, dy: -4 },
      { text: `${steps} step${steps === 1 ? "" : "s"}`, at: curve[0], color: "var(--nd-ink-nd)", dx: 4, dy: below },
    ],
  };
}

function variancePlot({ variances, k, after, exact }, width) {
  const domain = variancesDomain(variances);
  const range = [0, 1.1];
  return {
    height: width < 330 ? 150 : 230,
    x: { domain, log: true, label: "variance of the direction in the data", ticks: decades(domain, width / 55) },
    y: { domain: range, label: "variance after whitening (white: 1)", ticks: roundTicks([0, 1], 4) },
    marks: [
      cursor(variances[k], range),
      { line: [[domain[0], 1], [domain[1], 1]], color: COLORS.none, width: 1.5 },
      { line: Array.from(variances, (v, i) => [v, exact[i]]), color: COLORS.none, width: 1.5, dash: "2 4" },
      { dots: Array.from(variances, (v, i) => [v, after[i]]), color: COLORS.nd, radius: 2.5 },
      { dots: [[variances[k], after[k]]], color: "var(--nd-pick)", radius: 5 },
    ],
  };
}

function cursor(variance, [from, to]) {
  return { line: [[variance, from], [variance, to]], color: "var(--nd-pick)", width: 1, dash: "1 3" };
}

// Points of a standard normal cloud, the same ones always (Box and Muller, from a generator of Park and Miller).
const CLOUD = (() => {
  let seed = 7;
  const uniform = () => (seed = (16807 * seed) % 2147483647) / 2147483647;
  return Array.from({ length: 250 }, () => {
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
})();

// The plane of the strongest direction and the chosen one, turned so that neither lies along an axis.
const TURN = Math.PI / 5;

function cloudPlot({ variances, k, gains }, width, isAfter) {
  const gain = (i) => (isAfter ? gains[i] : variances[0] ** -0.5);
  const [a, b] = [0, k].map((i) => gain(i) * Math.sqrt(variances[i]));
  const [cos, sin] = [Math.cos(TURN), Math.sin(TURN)];
  const turned = ([u, v]) => [u * a * cos - v * b * sin, u * a * sin + v * b * cos];
  const circle = Array.from({ length: 73 }, (_, i) => [2 * Math.cos((i * Math.PI) / 36), 2 * Math.sin((i * Math.PI) / 36)]);
  const color = isAfter ? COLORS.nd : COLORS.none;
  const edge = 2.5;
  const inside = CLOUD.map(turned).filter(([x, y]) => Math.max(Math.abs(x), Math.abs(y)) < edge);
  const marks = [
    { dots: inside, color, radius: 1.6, opacity: 0.7 },
    { line: circle.map(turned), color, width: 2 },
    { text: isAfter ? "after" : "before", at: [-edge, edge], color: "var(--nd-ink)", dy: -24 },
  ];
  const remark = isAfter ? "dotted: white" : `strongest and no. ${k + 1}`;
  marks.push({ text: remark, at: [-edge, edge], color: "var(--nd-muted)", dy: -7, plain: true });
  if (isAfter) marks.unshift({ line: circle, color: COLORS.none, width: 1.5, dash: "2 4" });
  return {
    height: width + 36,
    box: { left: 0, right: width, top: 36, bottom: width + 36 },
    x: { domain: [-edge, edge] },
    y: { domain: [-edge, edge] },
    marks,
  };
}

/** How many directions have a variance within a tenth of 1 after whitening. */
export const whiteOnes = (after) => after.reduce((count, variance) => count + (Math.abs(variance - 1) <= 0.1 ? 1 : 0), 0);

function inWords({ variances, steps, k, after, exact, frobenius }) {
  const count = variances.length;
  const most = 1.5 ** steps / Math.sqrt(frobenius);
  return (
    `${whiteOnes(after)} of ${count} directions are white: their variance after whitening is 1 within a tenth. With the ` +
    `exact root ${whiteOnes(exact)} are. The median variance is ${brief(median(after))}, and ${brief(median(exact))} with the exact root. ` +
    `No gain can be above ${brief(most)} after ${steps} step${steps === 1 ? "" : "s"}. ` +
    `Direction no. ${k + 1}: variance ${brief(variances[k])} before, ${brief(after[k])} after.`
  );
}

export default { render };

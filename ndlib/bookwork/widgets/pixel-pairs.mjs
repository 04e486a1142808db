// Two pixels of a photograph at a distance: how alike they are, and three ways to make them uncorrelated.

import { COLORS, brief, make, oncePerFrame, paintGrey, plot } from "./draw.mjs";
import { change, choice, draggable, frame, onArrows, preset, reset, slider } from "./controls.mjs";
import { FARTHEST, correlationOf, covarianceAfter, drawnPairs, offsetOf, pairMoments, principal, resemblance, times, whiteningMatrix } from "./pairs.mjs";

const TRAITS = ["distance", "direction", "method"];
const NAMES = { raw: "as it is", pca: "PCA", zca: "ZCA", cholesky: "Cholesky" };
const LENS = 24; // pixels a side, of which the first pixel leaves so many at the left and above it:
const BEFORE = 3;
const EDGE = 3.4; // standard deviations that the cloud's picture reaches
const MOVE = 600; // milliseconds from one whitening to the next

function render({ model, el }) {
  const ui = frame(el, {
    model,
    name: "pixel-pairs",
    title: "Pairs of pixels, and three ways to whiten them",
    tryThis: "Drag the blue neighbour away from its pixel, and watch the ellipse open.",
  });
  const bytes = model.get("photo");
  const pixels = Float64Array.from(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), (v) => v / 255);
  const width = model.get("width");
  const height = pixels.length / width;

  // The photograph, with the place of the lens, and the lens, with the two pixels.
  const photo = make("canvas", { role: "img", "aria-label": "Photograph of a cat, grey" });
  const lens = make("canvas", { role: "img", "aria-label": "A part of the photograph, enlarged" });
  const [place, first, second] = ["nd-place nd-grip", "nd-first", "nd-second nd-grip"].map((name) => make("div", { class: name }));
  const photoBox = make("div", {
    class: "nd-photo",
    tabindex: "0",
    role: "group",
    "aria-label": "The photograph. Arrow keys move the pair of pixels over it.",
    "data-lm-suppress-shortcuts": "true",
  });
  photoBox.append(photo, place);
  const lensBox = make("div", { class: "nd-lens" }, lens, second, first);
  const pair = make("p", { class: "nd-values" });
  const cloudBox = make("div", { class: "nd-cloud" });
  const numbers = make("div", { class: "nd-numbers" });
  ui.picture.append(
    make("div", { class: "nd-where" }, photoBox, make("div", { class: "nd-near" }, lensBox, pair)),
    cloudBox,
  );
  ui.more.append(numbers);
  paintGrey(photo, pixels, width, 0, 1);

  slider(ui, { trait: "distance", label: "distance", min: 0, max: FARTHEST, format: (d) => `${d} pixel${d === 1 ? "" : "s"}` });
  choice(ui, { trait: "direction", label: "direction", options: [["right", "→"], ["down", "↓"], ["diagonal", "↘"]] });
  choice(ui, { trait: "method", label: "cloud", options: Object.entries(NAMES) });
  preset(ui, "Neighbours", { distance: 1, direction: "right", method: "raw" });
  preset(ui, "Far apart", { distance: FARTHEST, direction: "diagonal", method: "raw" });
  for (const method of ["pca", "zca", "cholesky"]) {
    preset(ui, `Whitened: ${NAMES[method]}`, { distance: 1, direction: "right", method });
  }

  // The pair that is picked out, by its first pixel; the reader's alone, no trait.
  const START = { x: 34, y: 40 };
  const picked = { ...START };
  reset(ui, TRAITS, () => {
    Object.assign(picked, START);
    updateSoon();
  });

  let now; // everything that the pictures show
  let movement = { from: null, began: 0 }; // of the cloud, from one matrix to another
  const cloud = plot(cloudBox, "Cloud of pairs of pixels, with the ellipse of two standard deviations", (w) => cloudPlot(now, w));

  function update() {
    const began = performance.now();
    const [distance, direction, method] = TRAITS.map((trait) => model.get(trait));
    const offset = offsetOf(distance, direction);
    const { means, covariance } = pairMoments(pixels, width, offset);
    const matrix = whiteningMatrix(covariance, method);
    const centred = drawnPairs(pixels, width, offset, means);
    // Raw grey values are drawn in units of the pixel's standard deviation, so that no cloud outgrows its picture.
    const unit = method === "raw" ? Math.sqrt(covariance[0]) : 1;
    const goal = matrix.map((part) => part / unit);
    if (now && now.method !== method && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
      movement = { from: now.shown, began };
    } else if (now?.method !== method) {
      movement.from = null;
    }
    now = { distance, direction, method, offset, means, covariance, matrix, centred, unit, goal, shown: movement.from ?? goal };
    showPixels();
    if (movement.from) move();
    else cloud.draw();
    ui.root.points = centred.map((point) => times(point, matrix)); // where the cloud is drawn, or is going
    showNumbers(numbers, now);
    cloudBox.classList.toggle("nd-still-open", method === "raw");
    ui.say(inWords(now));
    ui.root.milliseconds = performance.now() - began; // for the benchmark
  }
  const updateSoon = oncePerFrame(update);

  function moveOn() {
    const part = Math.min(1, (performance.now() - movement.began) / MOVE);
    const eased = part * part * (3 - 2 * part);
    now.shown = now.goal.map((goal, i) => movement.from[i] + eased * (goal - movement.from[i]));
    cloud.draw();
    if (part < 1) move();
    else movement.from = null;
  }
  const move = oncePerFrame(moveOn);

  function showPixels() {
    const { x, y } = picked;
    const [across, down] = now.offset;
    const [left, top] = [Math.max(0, x - BEFORE), Math.max(0, y - BEFORE)];
    const part = Float64Array.from({ length: LENS * LENS }, (_, i) => pixels[(top + Math.floor(i / LENS)) * width + left + (i % LENS)]);
    paintGrey(lens, part, LENS, 0, 1);
    frameAt(place, left / width, top / height, LENS / width, LENS / height);
    frameAt(first, (x - left) / LENS, (y - top) / LENS, 1 / LENS, 1 / LENS);
    frameAt(second, (x + across - left) / LENS, (y + down - top) / LENS, 1 / LENS, 1 / LENS);
    const values = [pixels[y * width + x], pixels[(y + down) * width + x + across]];
    now.pair = [values[0] - now.means[0], values[1] - now.means[1]];
    pair.replaceChildren(
      make("span", { class: "nd-swatch nd-first" }), `pixel ${values[0].toFixed(2)}`, make("br"),
      make("span", { class: "nd-swatch nd-second" }), `neighbour ${values[1].toFixed(2)}`, make("br"),
      make("span", { class: "nd-unit" }, "grey, from 0 to 1"),
      make("strong", {}, correlationOf(now.covariance).toFixed(3)), "correlation",
    );
  }

  ui.onChange(TRAITS, updateSoon);

  const moveTo = (x, y) => {
    picked.x = Math.min(width - FARTHEST - 1, Math.max(0, Math.round(x)));
    picked.y = Math.min(height - FARTHEST - 1, Math.max(0, Math.round(y)));
    updateSoon();
  };
  draggable(photoBox, (event) => {
    const box = photo.getBoundingClientRect();
    const middle = LENS / 2 - BEFORE; // the frame is taken by its middle
    moveTo(((event.clientX - box.left) / box.width) * width - middle, ((event.clientY - box.top) / box.height) * height - middle);
  });
  onArrows(photoBox, ([x, y]) => moveTo(picked.x + x, picked.y + y));
  draggable(lensBox, (event) => {
    const box = lens.getBoundingClientRect();
    const from = (pixel) => pixel - Math.max(0, pixel - BEFORE) + 0.5;
    const across = ((event.clientX - box.left) / box.width) * LENS - from(picked.x);
    const down = ((event.clientY - box.top) / box.height) * LENS - from(picked.y);
    change(model, nearestOffset(across, down));
  });
  // The tip of the ellipse: the distance at which it is as wide as where the reader drags it.
  draggable(cloudBox, (event) => {
    if (now.method !== "raw") return;
    const [, weak] = principal(now.covariance).vectors;
    const [x, y] = cloud.point(event);
    change(model, { distance: distanceOfWidth(Math.abs(x * weak[0] + y * weak[1]) * now.unit) });
  });
  function distanceOfWidth(wanted) {
    const misses = Array.from({ length: FARTHEST + 1 }, (_, distance) => {
      const { covariance } = pairMoments(pixels, width, offsetOf(distance, now.direction));
      return Math.abs(2 * Math.sqrt(principal(covariance).values[1]) - wanted);
    });
    return misses.indexOf(Math.min(...misses));
  }

  update();
  return () => {
    cloud.destroy();
    ui.destroy();
  };
}

function frameAt(element, ...parts) {
  ["left", "top", "width", "height"].forEach((side, i) => (element.style[side] = `${100 * parts[i]}%`));
}

/** The direction and the distance that lead nearest to a place. */
export function nearestOffset(across, down) {
  const within = (value) => Math.min(FARTHEST, Math.max(0, Math.round(value)));
  const offers = [["right", across], ["down", down], ["diagonal", (across + down) / 2]].map(([direction, length]) => {
    const distance = within(length);
    const [x, y] = offsetOf(distance, direction);
    return { direction, distance, miss: Math.hypot(across - x, down - y) };
  });
  const { direction, distance } = offers.reduce((best, offer) => (offer.miss < best.miss ? offer : best));
  return { direction, distance };
}

function cloudPlot({ method, covariance, centred, unit, shown, pair }, width) {
  const height = width + 6; // the plot itself is a square
  const raw = method === "raw";
  const put = (point) => times(point, shown);
  const { values, vectors } = principal(covariance);
  const ellipse = Array.from({ length: 73 }, (_, i) => {
    const parts = [Math.cos((i * Math.PI) / 36), Math.sin((i * Math.PI) / 36)].map((part, k) => 2 * part * Math.sqrt(values[k]));
    return put([0, 1].map((axis) => parts[0] * vectors[0][axis] + parts[1] * vectors[1][axis]));
  });
  const tips = vectors.map((vector, k) => put(vector.map((part) => 2 * Math.sqrt(values[k]) * part)));
  const axis = (tip) => [[0, 0], tip];
  const inside = centred.map(put).filter(([x, y]) => Math.max(Math.abs(x), Math.abs(y)) < EDGE);
  const color = raw ? COLORS.none : COLORS.nd;
  const greys = width < 360 ? [-0.2, 0, 0.2] : [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3];
  const levels = raw ? greys : [-3, -2, -1, 0, 1, 2, 3];
  const ticks = levels.map((at) => ({ at: at / unit, text: String(at).replace("-", "−") }));
  const name = (text, [x, y]) => {
    if (width < 260) return { text, at: [x, y], dy: y < 0 ? 20 : -12, anchor: "middle", color: "var(--nd-ink)" };
    const length = Math.max(0.2, Math.hypot(x, y));
    const [dx, dy] = [(14 * x) / length, (-14 * y) / length + 4];
    return { text, at: [x, y], dx, dy, anchor: x < -0.3 ? "end" : x > 0.3 ? "start" : "middle", color: "var(--nd-ink)" };
  };
  const circle = Array.from({ length: 73 }, (_, i) => [2 * Math.cos((i * Math.PI) / 36), 2 * Math.sin((i * Math.PI) / 36)]);
  const marks = [
    { line: circle, color: COLORS.none, width: 1.5, dash: "2 4" },
    { text: "white", at: [1.42, -1.42], color: "var(--nd-ink-plain)", dx: 6, dy: 10, plain: true },
    { dots: inside, color, radius: 1.5, opacity: 0.7 },
    { line: ellipse, color, width: 2.5 },
    { line: axis(tips[0]), color: "var(--nd-ink)", width: 2.5 },
    { line: axis(tips[1]), color: "var(--nd-ink)", width: 2.5, dash: "3 3" },
    name("strong", tips[0]),
    name("weak", tips[1]),
    ...(raw ? [{ grip: tips[1], color: "var(--nd-ink)", radius: 4.75 }] : []),
    ...(pair ? [{ dots: [put(pair)], color: "var(--nd-pick)", radius: 5 }] : []),
  ];
  const small = width < 260;
  const axis1 = raw ? (small ? "pixel less mean" : "pixel less its mean, grey value") : small ? "first number" : "first whitened number";
  const axis2 = raw ? (small ? "neighbour less mean" : "neighbour less its mean") : small ? "second number" : "second whitened number";
  return {
    height,
    box: small ? { left: 34 } : {},
    x: { domain: [-EDGE, EDGE], label: axis1, ticks },
    y: { domain: [-EDGE, EDGE], label: axis2, ticks },
    marks,
  };
}

// The covariance before, the matrix, the covariance after.
function showNumbers(box, { method, covariance, matrix }) {
  const [a, b, c] = covariance;
  const [p, q, r] = covarianceAfter(covariance, matrix);
  const table = (values, title, digits) => {
    const cells = values.map((value) => make("span", {}, value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−")));
    return make("figure", {}, make("div", { class: "nd-matrix" }, ...cells), make("figcaption", {}, title));
  };
  box.replaceChildren(table([a, b, b, c], "Cov of the two pixels", 4));
  if (method === "raw") return;
  box.append(table(matrix, `W, ${NAMES[method]}`, 2), table([p, q, q, r], "Cov after: Wᵀ Cov W", 2));
}

function inWords({ distance, direction, method, covariance, matrix }) {
  const along = { right: "to the right", down: "down", diagonal: "to the right and as many down" }[direction];
  const correlation = correlationOf(covariance);
  const where = distance === 0 ? "The pixel and itself" : `A pixel and the one ${distance} ${along}`;
  const start = `${where}: correlation ${correlation.toFixed(3)}.`;
  if (method === "raw") {
    const { values } = principal(covariance);
    const share = values[0] / (values[0] + values[1]);
    return `${start} The strong axis holds ${(100 * share).toFixed(1)}% of the variance; were the two uncorrelated and alike, it would be half.`;
  }
  const [one, two] = resemblance(covariance, matrix).map((value) => brief(value));
  const what = {
    pca: "PCA turns the axes onto the numbers: the first is the brightness of both, the second their difference",
    zca: "ZCA only stretches, along the axes and without a turn: each number stays with its own pixel",
    cholesky: "Cholesky leaves the pixel as it is, and of the neighbour what the pixel does not tell",
  }[method];
  const failed = distance === 0 ? " Two equal pixels stay a line: no matrix tells them apart." : "";
  return `${start} ${what}. Correlation of the first number with the pixel ${one}, of the second with the neighbour ${two}.${failed}`;
}

export default { render };

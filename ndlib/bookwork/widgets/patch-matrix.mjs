// A window on a picture, the row of the patch matrix X that it becomes, and the two pixels that a covariance joins.

import { brief, make, oncePerFrame, paintGrey, paintSigned, signedBar } from "./draw.mjs";
import { change, choice, draggable, floats, frame, logSlider, onArrows, preset, reset, settable, slider } from "./controls.mjs";
import { inverseRoot, moments, patchMatrix, product, weightsOf } from "./patches.mjs";

const TRAITS = ["picture", "k", "row", "column", "other", "rows", "shown", "eps", "w"];
const SYMBOLS = { covariance: "Cov", correlation: "correlation", D: "D = (Cov + eps)⁻½" };

/** All that the widget shows. The marks are kept within what the picture and the window have. */
export function state(model) {
  const [picture, wanted, row, column, other, rows, shown, eps, w] = TRAITS.map((trait) => model.get(trait));
  const pixels = floats(model.get(picture));
  const width = Math.sqrt(pixels.length);
  const k = Math.min(wanted, width - 1);
  const n = k * k;
  const matrix = patchMatrix(pixels, width, k);
  const { mean, covariance, centred } = moments(matrix, n);
  const deviations = Array.from(mean, (_, i) => Math.sqrt(covariance[i * n + i]));
  const square = {
    covariance: () => covariance,
    correlation: () => covariance.map((value, i) => value / (deviations[i % n] * deviations[Math.floor(i / n)])),
    D: () => inverseRoot(covariance, n, eps),
  }[shown]();
  const weights = weightsOf(w, k, w !== "D" ? null : shown === "D" ? square : inverseRoot(covariance, n, eps));
  const within = (value, end) => Math.min(value, end - 1);
  return {
    picture, rows, shown, eps, w, pixels, width, k, n, matrix, mean, covariance, centred, square, weights,
    y: product(rows === "x" ? matrix : centred, weights),
    row: within(row, matrix.length / n),
    column: within(column, n),
    other: within(other, n),
    correlation: (i, j) => covariance[i * n + j] / (deviations[i] * deviations[j]),
  };
}

function render({ model, el }) {
  const ui = frame(el, {
    model,
    name: "patch-matrix",
    title: "A picture’s patches as the rows of a matrix",
    tryThis: "Drag the window over the picture, and watch its row move through X.",
  });

  const move = (trait, size) => (x, y) => {
    const values = trait === "row" ? { row: y * size(now) + x } : { column: y, other: x };
    change(model, values);
  };
  const positions = ({ width, k }) => width - k + 1;
  const picture = panel(ui, "picture", "The picture. Arrow keys move the window.", {
    count: positions,
    at: ({ row, width, k }) => [row % (width - k + 1), Math.floor(row / (width - k + 1))],
    from: ({ width, k }) => [width, width, (k - 1) / 2],
    to: move("row", positions),
  });
  const x = panel(ui, "x", "The patch matrix X. Arrow keys up and down move through its rows.", {
    at: ({ row }) => [0, row],
    from: ({ n, matrix }) => [1, matrix.length / n, 0],
    to: (_, row) => change(model, { row }),
  });
  const w = panel(ui, "w", "The weights w. Arrow keys up and down move through them.", {
    at: ({ column }) => [0, column],
    from: ({ n }) => [1, n, 0],
    to: (_, column) => change(model, { column }),
    hover: true,
  });
  const y = panel(ui, "y", "The result y. Arrow keys move the window.", {
    at: ({ row, width, k }) => [row % (width - k + 1), Math.floor(row / (width - k + 1))],
    from: ({ width, k }) => [width - k + 1, width - k + 1, 0],
    to: move("row", positions),
    hover: true,
  });
  const square = panel(ui, "square", "The matrix of pairs of columns. Arrow keys move over its entries.", {
    at: ({ column, other }) => [other, column],
    from: ({ n }) => [n, n, 0],
    to: move("entry"),
    hover: true,
  });

  choice(ui, { trait: "picture", label: "picture", options: [["numbers", "5 × 5"], ["photograph", "photograph"]] });
  const size = slider(ui, { trait: "k", label: "window", min: 2, max: 5, format: (k) => `${k} × ${k}` });
  choice(ui, { trait: "rows", label: "rows", options: [["x", "X"], ["centred", "X − μ"]] });
  choice(ui, { trait: "w", label: "weights w", options: [["mean", "mean"], ["edge", "edge"], ["D", "D"]] });
  choice(ui, { trait: "shown", label: "matrix", options: [["covariance", "Cov"], ["correlation", "corr."], ["D", "D"]] });
  const eps = logSlider(ui, { trait: "eps", label: "eps", from: -5, to: 1, perDecade: 2, format: (value) => brief(value) });
  const start = { rows: "x", shown: "covariance", k: 3, w: "edge" };
  preset(ui, "By hand", { ...start, picture: "numbers", row: 5, column: 4, other: 5 });
  preset(ui, "Find edges", { ...start, picture: "photograph", row: 90, column: 4, other: 5 });
  preset(ui, "Opposite corners", { ...start, picture: "photograph", shown: "correlation", k: 5, column: 0, other: 24 });
  preset(ui, "Whiten: w from D", { picture: "photograph", rows: "centred", shown: "D", w: "D", k: 5, column: 12, other: 12, eps: 1e-3 });
  reset(ui, TRAITS);
  settable(ui, { row: [0, 224, 1], column: [0, 24, 1], other: [0, 24, 1] }); // `state` keeps them within the picture

  let now;
  function update() {
    const began = performance.now();
    now = state(model);
    const { width, k, n, row, column, other, square: values, matrix, shown, rows } = now;
    const count = matrix.length / n;
    size.setRange(2, Math.min(5, width - 1));
    if (model.get("k") !== k) change(model, { k });
    eps.box.hidden = shown !== "D" && now.w !== "D";

    const white = Math.max(...now.pixels);
    picture.paint(now.pixels, width, { white, title: "picture" });
    const [left, top] = picture.place(now);
    picture.mark("nd-window nd-grip", left / width, top / width, k / width, k / width);
    [column, other].forEach((tap, i) => {
      const [across, down] = [left + (tap % k), top + Math.floor(tap / k)];
      picture.mark(`nd-tap${i}`, across / width, down / width, 1 / width, 1 / width);
    });

    x.paint(rows === "x" ? matrix : now.centred, n, { white: rows === "x" ? white : null, title: `${rows === "x" ? "X" : "X − μ"}, ${count} × ${n}` });
    x.mark("nd-window nd-grip", 0, row / count, 1, 1 / count);
    [column, other].forEach((tap, i) => x.mark(`nd-tap${i}`, tap / n, 0, 1 / n, 1));

    w.paint(now.weights, 1, { white: null, title: "w" });
    w.mark("nd-tap0", 0, column / n, 1, 1 / n);
    const places = width - k + 1;
    const mean = now.w === "mean" && rows === "x";
    y.paint(now.y, places, { white: mean ? white : null, title: rows === "x" ? "y = Xw" : "y = (X − μ)w", numbers: true });
    y.mark("nd-window nd-grip", (row % places) / places, Math.floor(row / places) / places, 1 / places, 1 / places);

    square.paint(values, n, { white: null, title: SYMBOLS[shown] });
    square.mark("nd-window", other / n, column / n, 1 / n, 1 / n);
    ui.root.matrix = matrix; // what is drawn, for tests and for the curious
    ui.root.covariance = now.covariance;
    ui.root.square = values;
    ui.root.y = now.y;
    ui.say(inWords(now));
    ui.root.milliseconds = performance.now() - began; // for the benchmark
  }
  const updateSoon = oncePerFrame(update);
  ui.onChange([...TRAITS, "numbers", "photograph"], updateSoon);
  [picture, x, w, y, square].forEach((each) => each.listen(() => now));
  update();
  return ui.destroy;
}

/**
 * Values as pixels with frames on them, that a pointer and arrow keys move: `at` gives the place of the mark, `from` the
 * columns and rows of places and how far from its place the mark is taken, `to` sets it.
 */
function panel(ui, name, label, { count, at, from, to, hover = false }) {
  const canvas = make("canvas", { role: "img" });
  const digits = make("div", { class: "nd-digits", "aria-hidden": "true" });
  const box = make("div", { class: "nd-cells", tabindex: "0", role: "group", "aria-label": label, "data-lm-suppress-shortcuts": "true" });
  const marks = new Map();
  const title = make("div", { class: "nd-name" });
  const bars = [signedBar(), make("canvas", { class: "nd-bar", "aria-hidden": "true" })];
  const ends = make("div", { class: "nd-ends" });
  box.append(canvas, digits);
  ui.picture.append(make("div", { class: `nd-panel nd-panel-${name}` }, title, box, ...bars, ends));
  return {
    place: at,
    paint(values, width, { white, title: text, numbers = false }) {
      const most = white ?? values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
      // Numbers are written into the picture that has few: its colours are weakened, so that they can be read.
      const few = (white !== null || numbers) && most > 1 && values.length <= 81;
      const limit = few && white === null ? 2 * most : most;
      const black = few ? -limit : 0;
      if (white === null) paintSigned(canvas, values, width, limit);
      else paintGrey(canvas, values, width, black, limit);
      canvas.setAttribute("aria-label", `${text}: values ${white === null ? `from ${brief(-limit)} to` : "from 0 to"} ${brief(limit)}`);
      title.textContent = text;
      bars.forEach((bar, i) => (bar.hidden = (white === null) !== (i === 0)));
      paintGrey(bars[1], Array.from({ length: 101 }, (_, i) => i), 101, few ? -100 : 0, 100);
      const texts = white === null ? [brief(-limit), "0", brief(limit)] : ["0", brief(limit)];
      ends.replaceChildren(...texts.map((end) => make("span", {}, end)));
      digits.style.gridTemplateColumns = `repeat(${width}, 1fr)`;
      const shown = few ? Array.from(values) : [];
      digits.classList.toggle("nd-on-colours", white === null);
      digits.replaceChildren(...shown.map((value) => make("span", {}, brief(value))));
    },
    mark(kind, ...parts) {
      if (!marks.has(kind)) marks.set(kind, box.appendChild(make("div", { class: `nd-mark ${kind}` })));
      ["left", "top", "width", "height"].forEach((side, i) => (marks.get(kind).style[side] = `${100 * parts[i]}%`));
    },
    listen(get) {
      const last = () => (count ? [count(get()), count(get())] : from(get())).map((length) => length - 1);
      const within = (place) => to(...place.slice(0, 2).map((value, i) => Math.min(last()[i], Math.max(0, value))));
      const follow = (event) => {
        const { left, top, width, height } = canvas.getBoundingClientRect();
        const [columns, rows, grip] = from(get());
        const across = ((event.clientX - left) / width) * columns - grip;
        within([Math.floor(across), Math.floor(((event.clientY - top) / height) * rows - grip)]);
      };
      draggable(box, follow);
      if (hover) box.addEventListener("pointermove", (event) => event.pointerType === "mouse" && follow(event));
      onArrows(box, ([x, y]) => {
        const [across, down] = at(get());
        within([across + x, down + y]);
      });
    },
  };
}

function inWords({ picture, width, k, n, row, column, other, mean, covariance, square, shown, rows, eps, correlation, y }) {
  const tap = (i) => `${i + 1} (row ${Math.floor(i / k) + 1}, column ${(i % k) + 1} of the window)`;
  const across = width - k + 1;
  const where = `The window ${Math.floor(row / across) + 1} from the top, ${(row % across) + 1} from the left is row ${row + 1} of X; with w it gives y = ${brief(y[row], 3)}${rows === "x" ? "" : ", less the mean"}.`;
  const means = column === other ? `mean ${brief(mean[column], 3)}` : `means ${brief(mean[column], 3)} and ${brief(mean[other], 3)}`;
  const pair = column === other ? `Pixel ${tap(column)}` : `Pixels ${tap(column)} and ${tap(other)}`;
  const value = brief(covariance[column * n + other], 3);
  const joint = column === other ? `variance ${value}` : `covariance ${value}, correlation ${brief(correlation(column, other))}`;
  const unit = picture === "numbers" ? "" : " (black 0, white 1)";
  const root = shown === "D" ? ` Entry of D with eps ${brief(eps)}: ${brief(square[column * n + other], 3)}.` : "";
  return `${where} ${pair}: ${means}, ${joint}${unit}.${root}`;
}

export default { render };

// The published numbers: one row an architecture, BN and ND as dots, and for each dot what is known about it.

import { COLORS, make, oncePerFrame, roundTicks } from "./draw.mjs";
import { change, choice, frame, preset, reset, settable } from "./controls.mjs";
import { JIANG, OBADAGE, PAPER, RECOVERED, SBANDATI, agreement, canRecover, chosen, differencesOf, pairsOf, summary, timesOf } from "./evidence.mjs";

const TRAITS = ["dataset", "epochs", "sources", "only_test", "recovered", "view", "picked"];
const HINT = "Point at a dot, tap it, or go from one to the next with the arrow keys.";
// One for each view.
const TRY = {
  accuracy: "Point at a dot that lies far to the right of the others.",
  gain: "Press “Only test accuracies”, and see which gains are left.",
  difference: "Point at a value that lies farther from the paper than chance explains.",
  time: "Find the architecture that pays least for ND.",
};
const NEAR = { mouse: 22, touch: 44, pen: 44 }; // pixels between the pointer and the dot that it picks

function render({ model, el }) {
  const table = model.get("table");
  const ui = frame(el, {
    model,
    name: "evidence-explorer",
    title: "The published accuracies of ten architectures",
    tryThis: TRY[model.get("view")],
  });
  const legend = make("div", { class: "nd-legend" });
  const dots = make("div", {
    class: "nd-dots",
    tabindex: "0",
    role: "group",
    "aria-label": "Accuracies by architecture. Arrow keys go from dot to dot.",
    "data-lm-suppress-shortcuts": "true",
  });
  // One sentence about the number that is picked; everything else that is known about it unfolds.
  const about = make("summary", { "aria-live": "polite" });
  const source = make("p", { class: "nd-source" });
  const folded = make("details", { class: "nd-about" }, about, source);
  const note = make("p", { class: "nd-note", "aria-hidden": "true" }); // the beginning of what `about` says
  ui.picture.append(legend, dots);
  ui.readout.after(folded);

  choice(ui, { trait: "dataset", label: "data set", options: ["CIFAR-10", "CIFAR-100"].map((name) => [name, name]) });
  choice(ui, { trait: "epochs", label: "epochs", options: [1, 20, 100].map((n) => [n, String(n)]) });
  choice(ui, { trait: "view", label: "show", options: [["accuracy", "accuracy"], ["gain", "gain ND − BN"], ["difference", "minus paper"], ["time", "training time"]] });
  const which = make("details", { class: "nd-which" }, make("summary", {}, "Which sources and values"));
  ui.controls.append(which);
  const sources = checks(which, "sources");
  const all = table.sources.slice(0, RECOVERED);
  const inputs = {};
  for (const source of [PAPER, SBANDATI, JIANG, OBADAGE]) {
    const name = all[source];
    inputs[source] = sources.add(icon(source), name, {
      get: () => model.get("sources").includes(name),
      set: (on) => change(model, { sources: all.filter((each) => (each === name ? on : model.get("sources").includes(each))) }),
    });
  }
  const values = checks(which, "values");
  const toggle = (trait) => ({ get: () => model.get(trait), set: (on) => change(model, { [trait]: on }) });
  const onlyTests = values.add("", "only test accuracies", toggle("only_test"));
  const replace = values.add(icon(RECOVERED), "test means from the logs", toggle("recovered"));

  const asPublished = { sources: all, only_test: false, recovered: false, picked: -1 };
  const flag = (text) => ({ true: true, false: false })[text];
  for (const trait of ["only_test", "recovered"]) ui.root.settings.set(trait, flag);
  ui.root.settings.set("sources", (text) => {
    const names = text ? text.split(",") : [];
    return names.every((name) => all.includes(name)) ? all.filter((name) => names.includes(name)) : undefined;
  });
  settable(ui, { picked: [-1, table.source.length - 1, 1] });
  preset(ui, "As published", { ...asPublished, view: "accuracy" });
  preset(ui, "Only test accuracies", { ...asPublished, view: "accuracy", only_test: true });
  const corrected = { dataset: "CIFAR-100", epochs: 20, view: "accuracy", only_test: true, recovered: true };
  preset(ui, "CIFAR-100 after 20 epochs, corrected", { ...asPublished, ...corrected });
  preset(ui, "Where ND loses", { ...asPublished, dataset: "CIFAR-100", epochs: 100, view: "gain" });
  preset(ui, "Beside the paper, corrected", { ...asPublished, ...corrected, view: "difference" });
  preset(ui, "What ND costs", { ...asPublished, dataset: "CIFAR-10", epochs: 100, view: "time" });
  reset(ui, TRAITS);

  let now; // everything that the picture shows
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "nd-plot");
  svg.setAttribute("aria-hidden", "true"); // the two texts below say it
  dots.append(svg, note);

  function draw() {
    const width = Math.round(dots.clientWidth);
    if (width === 0 || !now) return;
    const picture = layout(table, now, width);
    svg.setAttribute("viewBox", `0 0 ${width} ${picture.height}`);
    svg.setAttribute("height", picture.height);
    svg.innerHTML = paint(table, now, picture);
    now.points = picture.points;
    showNote(note, picture, now);
    ui.root.points = picture.points; // what is drawn, for tests and for the curious
  }

  function update() {
    const began = performance.now();
    const [dataset, epochs, names, onlyTest, recovered, view, picked] = TRAITS.map((trait) => model.get(trait));
    const everything = chosen(table, { dataset, epochs, sources: all, onlyTest: false, recovered: false }).shown;
    // A time is a time, whatever the accuracy beside it was measured on.
    const found = chosen(table, { dataset, epochs, sources: names, onlyTest: onlyTest && view !== "time", recovered: recovered && view !== "time" });
    const { hidden } = found;
    const shown =
      view === "difference" ? differencesOf(table, found.shown).map(({ index }) => index)
      : view === "time" ? timesOf(table, found.shown).flatMap(({ bn, nd }) => [bn, nd])
      : found.shown;
    const pairs = view === "time" ? timesOf(table, shown) : pairsOf(table, shown);
    now = { dataset, epochs, view, picked, recovered, shown, hidden, pairs, everything, summary: summary(table, shown) };
    now.explained = explained(table, now);
    ui.root.shown = shown;
    ui.suggest(TRY[view]);
    const timed = view === "time" && "A time is a time, whatever the accuracy beside it was measured on.";
    const untimed = view === "time" && "Only the 2024 reproduction gives the times of its runs.";
    disable(inputs[PAPER], untimed || (view === "difference" && "The paper is what is subtracted."));
    for (const source of [SBANDATI, JIANG]) disable(inputs[source], untimed);
    disable(onlyTests, timed);
    disable(replace, timed || (!canRecover(table, dataset, epochs) && "The logs are of CIFAR-100 after 20 epochs."));
    draw();
    legend.innerHTML = legendOf(table, now);
    const [head, rest, sentence] = now.explained;
    const said = head ? head + sentence : HINT;
    if (about.textContent !== said) about.replaceChildren(...(head ? [make("strong", {}, head), sentence] : [HINT]));
    source.textContent = rest;
    if (!head) folded.open = false;
    ui.say(inWords(table, now));
    ui.root.milliseconds = performance.now() - began; // for the benchmark
  }
  const updateSoon = oncePerFrame(update);
  ui.onChange(TRAITS, updateSoon);
  ui.onChange(TRAITS, () => [sources, values].forEach((box) => box.show()));

  const pick = (index) => index !== model.get("picked") && change(model, { picked: index });
  function pickNear(event) {
    const { left, top } = svg.getBoundingClientRect();
    const distances = now.points.map((point) => Math.hypot(point.left - event.clientX + left, point.top - event.clientY + top));
    const least = Math.min(...distances);
    if (least < (NEAR[event.pointerType] ?? NEAR.mouse)) pick(now.points[distances.indexOf(least)].index);
  }
  dots.addEventListener("pointerup", pickNear); // a finger that scrolls is never lifted here
  dots.addEventListener("pointermove", (event) => event.pointerType === "mouse" && pickNear(event));
  dots.addEventListener("keydown", (event) => {
    if (event.key === "Escape") pick(-1);
    const next = neighbour(now.points, model.get("picked"), event.key);
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    pick(next);
  });

  const observer = new ResizeObserver(draw);
  observer.observe(dots);
  update();
  return () => {
    observer.disconnect();
    ui.destroy();
  };
}

// A check box that would change nothing, and why; `why` is false for one that does.
function disable(input, why) {
  input.disabled = Boolean(why);
  input.parentElement.title = why || "";
}

// A group of check boxes; `add` returns the input of one that gets and sets something.
function checks(place, label) {
  const row = make("div", {});
  const shows = [];
  place.append(make("fieldset", { class: "nd-checks" }, make("legend", {}, label), row));
  return {
    add(picture, text, { get, set }) {
      const input = make("input", { type: "checkbox", "data-lm-suppress-shortcuts": "true" });
      const words = make("span", {});
      words.innerHTML = picture;
      words.append(text);
      row.append(make("label", {}, input, words));
      input.addEventListener("change", () => set(input.checked));
      shows.push(() => (input.checked = get()));
      shows.at(-1)();
      return input;
    },
    show: () => shows.forEach((show) => show()),
  };
}

// Where everything stands. ------------------------------------------------------------------------------------------

const LANE = 5.7; // pixels from one source to the next
const APART = 0.3; // of a lane that BN and ND stand above and below its middle, where both have intervals
const METHOD_COLORS = { BN: COLORS.bn, ND: COLORS.nd };

function layout(table, now, width) {
  const { view, shown, everything, pairs } = now;
  const narrow = width < 480;
  const lanes = [PAPER, SBANDATI, JIANG, OBADAGE, RECOVERED].filter((source) => shown.some((i) => table.source[i] === source));
  const row = Math.max(25, 5 + LANE * lanes.length);
  const box = { left: narrow ? 100 : 112, right: width - 14, top: 6, bottom: 6 + row * table.architectures.length };
  const domain =
    view === "accuracy" ? accuracyDomain(everything.map((i) => table.accuracy[i]))
    : view === "gain" ? gainDomain(table, now)
    : view === "time" ? timeDomain(table, now)
    : differenceDomain(table, now);
  const x = (value) => box.left + ((value - domain[0]) / (domain[1] - domain[0])) * (box.right - box.left);
  const y = (architecture, source) => box.top + (architecture + 0.5) * row + LANE * (lanes.indexOf(source) - (lanes.length - 1) / 2);
  const at = (i) => ({ row: table.architecture[i], source: table.source[i], top: y(table.architecture[i], table.source[i]) });
  const points =
    view === "gain"
      ? pairs.map(({ nd, bn, gain }) => ({
          index: nd, partner: bn, value: gain, method: gain < 0 ? "BN" : "ND", left: x(gain), ...at(nd),
          suspicious: Boolean(table.suspicious[nd] || table.suspicious[bn]),
        }))
      : view === "time"
        ? pairs.map(({ nd, bn, ratio }) => ({ index: nd, partner: bn, value: ratio, method: "ND", left: x(ratio), ...at(nd), suspicious: false }))
      : view === "difference"
        ? differencesOf(table, shown).map(({ index, value, half }) => ({
            index, value, half, method: table.method[index], left: x(value), ...at(index),
            top: at(index).top + (table.method[index] === "BN" ? -APART : APART) * LANE,
            suspicious: Boolean(table.suspicious[index]),
          }))
        : shown.map((i) => ({
            index: i, value: table.accuracy[i], method: table.method[i], left: x(table.accuracy[i]), ...at(i),
            suspicious: Boolean(table.suspicious[i]),
          }));
  return { width, height: box.bottom + 36, row, box, domain, x, y, points };
}

function accuracyDomain(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const room = 0.03 * (most - least);
  return [Math.max(0, least - room), Math.min(100, most + room)];
}

// Of the values that the choice shows: test accuracies lie close together, and an interval may run out of the picture.
function differenceDomain(table, { shown }) {
  const values = differencesOf(table, shown).flatMap(({ value, half }) => [value, ...(half < 4 ? [value - half, value + half] : [])]);
  const [least, most] = [Math.min(-1, ...values), Math.max(1, ...values)];
  const room = 0.06 * (most - least);
  return [least - room, most + room];
}

// Of everything that could be shown, so that the axis stays when sources come and go.
function gainDomain(table, { everything, dataset, epochs }) {
  const logs = table.source.flatMap((source, i) =>
    source === RECOVERED && table.dataset[i] === dataset && table.epochs[i] === epochs ? [i] : []);
  const gains = pairsOf(table, [...everything, ...logs]).map(({ gain }) => gain);
  const [least, most] = [Math.min(0, ...gains), Math.max(...gains)];
  const room = 0.04 * (most - least);
  return [least - room, most + room];
}

// One domain for all data sets and epochs, so that the dots move and not the axis.
function timeDomain(table) {
  const cells = table.dataset.map((dataset, i) => `${dataset} ${table.epochs[i]}`);
  const ratios = [...new Set(cells)].flatMap((cell) =>
    timesOf(table, table.source.flatMap((source, i) => (source === OBADAGE && cells[i] === cell ? [i] : []))).map(({ ratio }) => ratio));
  return [0.5, 1.04 * Math.max(...ratios)];
}

function paint(table, now, { box, domain, x, y, row, points }) {
  const parts = [];
  table.architectures.forEach((name, k) => {
    const top = box.top + k * row;
    if (k % 2 === 0) parts.push(`<rect class="nd-row" x="0" y="${top}" width="${box.right + 14}" height="${row}"/>`);
    parts.push(`<text class="nd-label" x="6" y="${top + row / 2}" dy=".35em">${name}</text>`);
  });
  const upright = (value) => `M${x(value).toFixed(1)} ${box.top}V${box.bottom}`;
  for (const { at, text } of roundTicks(domain, (box.right - box.left) / 60)) {
    const place = x(at).toFixed(1);
    const sign = isDifference(now.view) && at > 0 ? "+" : "";
    parts.push(`<path class="nd-grid" d="${upright(at)}"/>`);
    parts.push(`<text class="nd-tick" x="${place}" y="${box.bottom + 16}" text-anchor="middle">${sign}${text}</text>`);
  }
  parts.push(`<path class="nd-axis" d="M${box.left} ${box.bottom}H${box.right}"/>`);
  const label = { accuracy: "accuracy (%)", gain: "accuracy of ND minus BN (points)", difference: "reproduction minus paper (points)", time: "training time, ND / BN" }[now.view];
  parts.push(`<text class="nd-label" x="${box.right}" y="${box.bottom + 32}" text-anchor="end">${label}</text>`);
  const origin = now.view === "time" ? 1 : 0;
  if (now.view !== "accuracy") parts.push(`<path class="nd-zero" d="${upright(origin)}"/>`);
  const inside = (value) => Math.min(box.right + 8, Math.max(box.left - 4, x(value))).toFixed(1);
  for (const { value, half, top, method, index } of points) {
    if (now.view !== "difference" || half === null) continue;
    const single = table.attempts[index].length < 2 ? ' stroke-dasharray="2 2"' : "";
    parts.push(`<path class="nd-interval" stroke="${METHOD_COLORS[method]}"${single} d="M${inside(value - half)} ${top.toFixed(1)}H${inside(value + half)}"/>`);
  }
  for (const { source, architecture, bn, nd, gain, ratio } of now.view === "difference" ? [] : now.pairs) {
    const ends = { accuracy: [table.accuracy[bn], table.accuracy[nd]], gain: [0, gain], time: [1, ratio] }[now.view];
    const dash = now.view !== "time" && (table.suspicious[bn] || table.suspicious[nd]) ? ' stroke-dasharray="2 3"' : "";
    parts.push(`<path class="nd-joint"${dash} d="M${x(ends[0]).toFixed(1)} ${y(architecture, source).toFixed(1)}H${x(ends[1]).toFixed(1)}"/>`);
  }
  for (const point of points) parts.push(marker(point.source, point.left, point.top, METHOD_COLORS[point.method], point.suspicious));
  const ring = points.find((point) => isPicked(point, now.picked));
  if (ring) parts.push(`<circle class="nd-ring" cx="${ring.left.toFixed(1)}" cy="${ring.top.toFixed(1)}" r="9"/>`);
  return parts.join("");
}

// Beside the dot that is picked, above it where there is room: a finger hides what is below.
function showNote(note, { width, height, points }, { picked, explained: [head, , brief] }) {
  const point = points.find((each) => isPicked(each, picked));
  note.hidden = !point;
  if (!point) return;
  note.replaceChildren(make("strong", {}, head), brief.replace(/^; /, ""));
  const left = Math.min(width - note.offsetWidth, Math.max(0, point.left - note.offsetWidth / 2));
  const above = point.top - 14 - note.offsetHeight;
  note.style.left = `${left}px`;
  note.style.top = `${above < 0 ? Math.min(point.top + 14, height - note.offsetHeight) : above}px`;
}

// Each source has a marker of its own: the paper hollow, reproductions half or lightly filled.
function marker(source, left, top, color, crossed = false) {
  const shape = {
    [PAPER]: "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0Z",
    [SBANDATI]: "M0 -5.5L5.5 0L0 5.5L-5.5 0Z",
    [JIANG]: "M0 5.5L5.3 -4.2H-5.3Z",
    [OBADAGE]: "M-4.2 -4.2H4.2V4.2H-4.2Z",
    [RECOVERED]: "M0 -5.5L5.3 4.2H-5.3Z",
  }[source];
  const half = { [SBANDATI]: ["M0 -5.5V5.5L-5.5 0Z", 1], [JIANG]: ["M0 5.5V-4.2H-5.3Z", 1] };
  const filled = { ...half, [OBADAGE]: [shape, 0.35], [RECOVERED]: [shape, 0.35] }[source];
  const fill = filled ? `<path fill="${color}" opacity="${filled[1]}" d="${filled[0]}"/>` : "";
  const cross = crossed ? '<path class="nd-cross" d="M-6 -6L6 6M-6 6L6 -6"/>' : "";
  const outline = `<path fill="none" stroke="${color}" stroke-width="2" d="${shape}"/>`;
  return `<g transform="translate(${left.toFixed(1)} ${top.toFixed(1)})"><path fill="var(--nd-paper)" d="${shape}"/>${fill}${outline}${cross}</g>`;
}

function icon(source, color = COLORS.none, crossed = false) {
  return `<svg viewBox="-8 -8 16 16" aria-hidden="true">${marker(source, 0, 0, color, crossed)}</svg>`;
}

function legendOf(table, { view, shown }) {
  const ink = { BN: "var(--nd-ink-bn)", ND: "var(--nd-ink-nd)" };
  const swatch = (method, text) =>
    `<span style="color:${ink[method]}"><svg viewBox="-8 -8 16 16" aria-hidden="true"><circle r="6" fill="${METHOD_COLORS[method]}"/></svg><strong>${text}</strong></span>`;
  const methods =
    view === "gain"
      ? [swatch("ND", "ND ahead"), swatch("BN", "BN ahead")]
      : view === "time" ? [swatch("ND", "ND, where BN is 1")]
      : [swatch("BN", "BN"), swatch("ND", "ND")];
  if (view === "difference") {
    const line = (dash) => `<svg viewBox="-8 -8 16 16" aria-hidden="true"><path d="M-8 0H8" stroke="currentColor" stroke-width="2"${dash}/></svg>`;
    methods.push(`<span>${line("")}95 % interval</span>`, `<span>${line(' stroke-dasharray="2 2"')}one run: too short</span>`);
  }
  for (const source of [...new Set(shown.map((i) => table.source[i]))].sort((a, b) => a - b)) {
    if (view !== "time") methods.push(`<span>${icon(source)}${table.sources[source]}</span>`);
  }
  const crossed = view === "time" ? undefined : shown.find((i) => table.suspicious[i]);
  if (crossed !== undefined) methods.push(`<span>${icon(table.source[crossed], COLORS.none, true)}no test accuracy</span>`);
  return methods.join("");
}

const isDifference = (view) => view === "gain" || view === "difference";
const isPicked = ({ index, partner }, picked) => picked >= 0 && (index === picked || partner === picked);

// The dot to which a key leads: left and right within a row, up and down to the same source and method in another.
function neighbour(points, picked, key) {
  const order = [...points].sort((a, b) => a.row - b.row || a.left - b.left || a.top - b.top);
  if (order.length === 0) return undefined;
  if (key === "Home") return order[0].index;
  if (key === "End") return order.at(-1).index;
  const direction = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[key];
  if (!direction) return undefined;
  const here = order.find((point) => isPicked(point, picked));
  if (!here) return order[0].index;
  const sideways = key === "ArrowLeft" || key === "ArrowRight";
  const alike = sideways
    ? order.filter((point) => point.row === here.row)
    : order.filter((point) => point.source === here.source && sameColumn(points, point, here));
  return (alike[alike.indexOf(here) + direction] ?? here).index;
}

// In the view of gains a source has one dot in each row, whatever its colour.
function sameColumn(points, point, here) {
  const single = points.filter(({ row, source }) => row === here.row && source === here.source).length === 1;
  return single || point.method === here.method;
}

// Words. ------------------------------------------------------------------------------------------------------------

const points = (value) => `${Math.abs(value).toFixed(1)} point${Math.abs(value).toFixed(1) === "1.0" ? "" : "s"}`;
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
const epochsInWords = (epochs) => `${epochs} epoch${epochs === 1 ? "" : "s"}`;

// Of the record that is picked: what it is, all that is known about it, and the least of it.
function explained(table, { view, picked, shown, pairs }) {
  if (!shown.includes(picked)) return ["", "", ""];
  const name = `${table.architectures[table.architecture[picked]]}, ${table.names[table.source[picked]]}`;
  const value = (i) => {
    const runs = table.attempts[i];
    const mean = runs.length ? ` (${runs.length} runs: ${runs.map((each) => each.toFixed(2)).join(", ")})` : "";
    return `${table.accuracy[i].toFixed(2)} %${mean}`;
  };
  const file = `File: ${table.files[table.file[picked]]}`;
  if (view === "accuracy") {
    const text = table.texts[table.text[picked]];
    const first = text.split(/[:.]/)[0];
    return [`${name}: ${table.method[picked]} ${table.accuracy[picked].toFixed(2)} %`, `${value(picked)}. ${text} ${file}`, `; ${first[0].toLowerCase()}${first.slice(1)}.`];
  }
  if (view === "difference") {
    const [{ value: difference, half }] = differencesOf(table, [picked]);
    const runs = table.attempts[picked].length;
    const interval =
      half === null ? "no interval, as it is not known to be a test accuracy."
      : `the 95 % interval is ${signed(difference - half)} to ${signed(difference + half)}, ` +
        (runs > 1 ? `from ${runs} runs and 10,000 test images.` : "from the 10,000 test images alone: with one run it is too short.");
    const head = `${name}: ${table.method[picked]} ${signed(difference)} points`;
    return [head, `${value(picked)} beside ${table.paper[picked].toFixed(2)} % in the paper. ${table.texts[table.text[picked]]} ${file}`, `; ${interval}`];
  }
  const { bn, nd, gain, ratio } = pairs.find((pair) => pair.nd === picked || pair.bn === picked);
  if (view === "time") {
    const runs = (i) => table.seconds[i].map((each) => each.toFixed(0)).join(", ");
    const said = `Training took ${runs(nd)} seconds with ND and ${runs(bn)} with BN; the ratio is that of the medians.`;
    return [`${name}: ${ratio.toFixed(2)} times as long`, `${said} ${file}`, " to train with ND as with BN."];
  }
  const [ofBn, ofNd] = [bn, nd].map((i) => table.texts[table.text[i]]);
  // What is said of both alike, sentence by sentence, is said once.
  const also = ofNd.split(/(?<=\.) /).filter((sentence) => !ofBn.includes(sentence)).join(" ");
  const of = also ? `BN: ${ofBn} ND: ${also}` : ofBn;
  return [`${name}: ${signed(gain)} points`, `BN ${value(bn)}, ND ${value(nd)}. ${of} ${file}`, `; BN ${table.accuracy[bn].toFixed(2)} %, ND ${table.accuracy[nd].toFixed(2)} %.`];
}

function inWords(table, { dataset, epochs, view, shown, hidden, pairs, summary: found }) {
  if (view === "time") {
    const ratios = pairs.map(({ ratio }) => ratio).sort((a, b) => a - b);
    const said = ratios.length
      ? `In ${table.names[OBADAGE]} training takes ${ratios[0].toFixed(1)} to ${ratios.at(-1).toFixed(1)} times as long with ND as with BN.`
      : "Only the 2024 reproduction gives the times of its runs.";
    return `${dataset} after ${epochsInWords(epochs)}. ${said}`;
  }
  // What is counted and what it is measured in are said once.
  const said = found.map(({ source, count, ahead, gain }, i) => {
    const trained = shown.some((each) => table.source[each] === source && table.kind[each] === "train");
    const by = `${gain < 0 ? "behind by" : "by"} ${i ? Math.abs(gain).toFixed(1) : `${points(gain)} on average`}`;
    return `in ${ahead} of ${count}${i ? "" : " architectures"} in ${table.names[source]}, ${by}${trained ? " (training accuracies)" : ""}`;
  });
  const beside = agreement(table, shown).map(
    ({ source, count, agree }) => `in ${table.names[source]} the paper's value lies within the interval in ${agree} of ${count} cells`);
  const nothing = view === "difference" && shown.length ? "None of the values shown is known to be a test accuracy." : "Nothing is left to show.";
  const words = view === "difference" ? beside.join("; ").replace(/^i/, "I") : said.length && `ND is ahead ${said.join("; ")}`;
  const ahead = words ? `${words}.` : nothing;
  const left = [...new Set(hidden.map((i) => table.source[i]))].map((source) => {
    const trained = hidden.some((i) => table.source[i] === source && table.kind[i] === "train");
    return `${table.names[source]} (${trained ? "training accuracies" : "it does not say what they are"})`;
  });
  const without = left.length ? ` Left out: the values of ${left.join(" and ")}.` : "";
  return `${dataset} after ${epochsInWords(epochs)}. ${ahead}${without}`;
}

export default { render };

// Small networks that learn handwritten digits in the page, each in a worker of its own.

import { COLORS, brief, decades, make, paintGrey, paintSigned, plot, roundTicks } from "./draw.mjs";
import { change, choice, frame, preset, reset, slider } from "./controls.mjs";
import { SIDE, unpack } from "./digits.mjs";
import { background } from "./background.mjs";
import workerSource from "./live-race-worker.mjs?text";

const ARMS = {
  plain: { method: "none", rate: "plain_rate", color: COLORS.none, ink: "var(--nd-ink-plain)", shape: "square", radius: 3 },
  BN: { method: "bn", rate: "bn_rate", color: COLORS.bn, ink: "var(--nd-ink-bn)", shape: "round", radius: 4 },
  ND: { method: "nd", rate: "nd_rate", color: COLORS.nd, ink: "var(--nd-ink-nd)", shape: "diamond", radius: 4.5 },
};
const [STEPS, SECONDS] = [100, 6]; // of a race
const GOAL = 88; // percent
const LIMITS = { weights: 0.6, folded: 1.2 }; // of the colours of kernels
const MISTAKES = 20; // digits in the strip, where it is wide enough
const BETWEEN = 60; // milliseconds between two pictures, at least
const BETWEEN_WORDS = 4000; // and between two sentences
const NO_WORKER = "the networks learn in workers, which this browser does not give to the page";
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function render({ model, el }) {
  if (typeof Worker === "undefined") throw new Error(NO_WORKER);
  const ui = frame(el, {
    model,
    name: "live-race",
    title: "Three small networks that learn to read digits",
    tryThis: "Press “Paper's rate”, and see which of the three still learns.",
  });
  const facts = model.get("facts");
  const digits = { packed: bytes(model.get("digits")), count: facts.count, trained: facts.trained };
  const refuse = () => Promise.reject(new Error(NO_WORKER));
  const arms = Object.entries(ARMS).map(([name, style]) => {
    const worker = background(workerSource, { start: refuse, train: refuse });
    return { name, ...style, worker, records: [], stale: true, busy: false, fault: null, asked: 0 };
  });
  ui.undo.push(() => arms.forEach((arm) => arm.worker.stop()));
  const shown = () => arms.filter((arm) => model.get("arms").includes(arm.name));

  let pictures = null; // the held-out digits, when they are unpacked
  const unreadable = [];

  // The race. An arm is asked for a few steps, reports, and is asked again.
  let playing = false;
  let seen = false; // is the picture in the window?
  const bySteps = () => model.get("by") === "steps";
  const running = () => shown().filter((arm) => !arm.fault);
  const stepOf = (arm) => (arm.stale ? 0 : (arm.records.at(-1)?.step ?? 0));
  const secondsOf = (arm) => (arm.stale ? 0 : (arm.records.at(-1)?.seconds ?? 0));
  const finished = (arm) => (bySteps() ? stepOf(arm) >= STEPS : secondsOf(arm) >= SECONDS);
  // Nobody goes ahead: at any time all have taken equally many steps, or nearly equally many seconds.
  const ahead = (arm, other) => (bySteps() ? stepOf(arm) > stepOf(other) : secondsOf(arm) > secondsOf(other) + 0.3);

  function wanted(arm) {
    if (arm.asked > 0) return true;
    if (!playing || !seen || document.hidden || finished(arm)) return false;
    return !running().some((other) => ahead(arm, other));
  }

  async function drive(arm) {
    if (arm.busy || arm.fault) return;
    arm.busy = true;
    try {
      while (arm.stale || (running().includes(arm) && wanted(arm))) {
        const anew = arm.stale;
        arm.stale = false;
        const report = await (anew
          ? arm.worker.run("start", digits, settingsOf(arm))
          : arm.worker.run("train", arm.asked ? 1 : stride(stepOf(arm))));
        if (arm.stale) continue; // started anew in the meantime
        if (anew) arm.records = [];
        else arm.asked = Math.max(0, arm.asked - 1);
        arm.records.push(report);
        others(arm);
        drawSoon();
      }
    } catch (error) {
      arm.fault = error.message;
      console.error(error);
      others(arm);
      drawSoon();
    } finally {
      arm.busy = false;
    }
    if (playing && running().every(finished)) playing = false;
    drawSoon();
  }
  const others = (arm) => arms.forEach((other) => other !== arm && drive(other));
  const go = () => (arms.forEach(drive), drawSoon());

  function settingsOf({ method, rate }) {
    const [batch, seed, blockSize, steps] = ["batch", "seed", "block_size", "n_iter"].map((trait) => model.get(trait));
    const options = method === "nd" ? { ...facts.options[model.get("variant")], blockSize, steps } : {};
    return { method, options, rate: model.get(rate), batch, seed, momentum: facts.momentum, decay: facts.decay };
  }

  function restart(those) {
    for (const arm of those) Object.assign(arm, { stale: true, fault: null, asked: 0 });
    playing = true;
    go();
  }
  const restartAll = () => restart(arms);

  // The picture.
  const course = make("div", { class: "nd-course" });
  const tiles = kernelTiles(arms);
  const strip = mistakes(arms);
  ui.picture.append(course, tiles.root, strip.root);
  const [lossBox, whiteBox] = [make("div"), make("div")];
  ui.more.append(lossBox, whiteBox, studied(facts));
  const plots = [
    plot(course, "Held-out digits that each network gets right, in percent, as they learn", (width) => courseOf(shown(), bySteps(), width)),
    plot(lossBox, "Loss of each training step, logarithmic", (width) => lossOf(shown(), bySteps(), width)),
    plot(whiteBox, "Whiteness of the input of each layer; 1 is white", () => whitenessOf(shown())),
  ];
  ui.undo.push(() => plots.forEach((each) => each.destroy()));

  // One part a frame, so that none is late.
  const drawSoon = inTurn(BETWEEN, [
    plots[0].draw,
    () => {
      tiles.show(shown());
      if (pictures) strip.show(shown(), pictures);
    },
    () => {
      toggle.textContent = playing ? "Pause" : "Play";
      complain();
      speak();
    },
    plots[1].draw,
    plots[2].draw,
  ]);
  function complain() {
    const faults = arms.filter((arm) => arm.fault).map((arm) => `${arm.name} stopped: ${arm.fault}.`);
    const rest = faults.length && faults.length < arms.length ? ["The others go on."] : [];
    ui.complain([...unreadable, ...faults, ...rest].join(" "));
  }
  let spoke = -Infinity;
  function speak() {
    const moving = playing && seen && running().some((arm) => arm.busy);
    if (moving && performance.now() - spoke < BETWEEN_WORDS) return;
    spoke = moving ? performance.now() : -Infinity;
    const paused = !moving && running().some((arm) => stepOf(arm) > 0 && !finished(arm));
    ui.say(inWords(shown(), bySteps(), moving, paused));
    strip.say();
  }

  // The controls.
  const run = make("div", { class: "nd-run" });
  const button = (text, act) => {
    const made = make("button", { type: "button", "data-lm-suppress-shortcuts": "true" }, text);
    made.addEventListener("click", act);
    run.append(made);
    return made;
  };
  const toggle = button("Play", () => {
    if (!playing && running().every(finished)) return restartAll();
    playing = !playing;
    go();
  });
  button("Step", () => {
    playing = false;
    running().forEach((arm) => (arm.asked += 1));
    go();
  });
  button("Restart", restartAll);
  ui.presets.append(run);
  for (const [text, values] of Object.entries(facts.presets)) preset(ui, text, values).addEventListener("click", restartAll);

  const by = choice(ui, { trait: "by", label: "Curves by", options: [["steps", "by steps"], ["seconds", "by seconds"]] });
  run.append(by.box);
  const rates = { min: -8, max: 4, format: (rate) => brief(rate, 3), toValue: (p) => Number((0.1 * 2 ** (p / 2)).toPrecision(3)), toPosition: (rate) => Math.round(2 * Math.log2(rate / 0.1)) };
  for (const { name, rate } of arms) slider(ui, { trait: rate, label: `${name}: rate`, ...rates });
  slider(ui, { trait: "batch", label: "batch", min: 3, max: 7, format: String, toValue: (p) => 2 ** p, toPosition: (batch) => Math.round(Math.log2(batch)) });
  slider(ui, { trait: "block_size", label: "ND: block", min: 0, max: 4, format: String, toValue: (p) => 2 ** p, toPosition: (size) => Math.round(Math.log2(size)) });
  slider(ui, { trait: "n_iter", label: "ND: root steps", min: 1, max: 15, format: String });
  slider(ui, { trait: "seed", label: "seed", min: 1, max: 20, format: String });
  choice(ui, { trait: "variant", label: "ND: eps and averages", options: [["published", "published"], ["recommended", "recommended"]] });
  ui.controls.append(armChecks(ui, arms));
  const traits = ["arms", ...arms.map((arm) => arm.rate), "batch", "block_size", "n_iter", "seed", "variant", "by"];
  reset(ui, traits, restartAll);

  for (const arm of arms) ui.onChange([arm.rate], () => restart([arm]));
  ui.onChange(["batch", "seed"], restartAll);
  ui.onChange(["block_size", "n_iter", "variant"], () => restart(arms.filter((arm) => arm.method === "nd")));
  ui.onChange(["arms", "by"], go);

  // It starts when it is seen for the first time, and rests while it is not.
  let first = true;
  const watcher = new IntersectionObserver((entries) => {
    seen = entries.at(-1).isIntersecting;
    if (seen && first && !calm()) playing = true;
    if (seen) first = false;
    go();
  }, { threshold: 0.3 });
  watcher.observe(course);
  document.addEventListener("visibilitychange", go);
  ui.undo.push(() => (watcher.disconnect(), document.removeEventListener("visibilitychange", go)));

  unpack(digits.packed, digits.count).then(({ images, labels }) => {
    const pixels = SIDE * SIDE;
    pictures = {
      labels: labels.subarray(digits.trained),
      of: (i) => images.subarray((digits.trained + i) * pixels, (digits.trained + i + 1) * pixels),
    };
    drawSoon();
  }, (error) => (unreadable.push(`The digits cannot be shown: ${error.message}.`), drawSoon()));
  Object.assign(ui.root, { arms }); // what is drawn, for tests and for the curious
  go();
  return ui.destroy;
}

// Steps until the next report: a report takes as long as a step, and little happens later on. Where the reader wants no
// motion, only results are drawn.
function stride(step) {
  if (calm()) return 10 - (step % 10);
  return step < 20 ? 1 : step < 50 ? 2 : 5;
}

const bytes = (view) => new Uint8Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

/** A function that has all parts drawn, one in each frame, but so many milliseconds after the last time at the earliest. */
function inTurn(milliseconds, parts) {
  let [asked, wanted, last, left] = [0, false, -Infinity, []];
  const look = (time) => {
    asked = 0;
    if (wanted && !left.length && time - last >= milliseconds) [wanted, last, left] = [false, time, [...parts]];
    left.shift()?.();
    if (wanted || left.length) ask();
  };
  const ask = () => (asked ||= requestAnimationFrame(look));
  return () => {
    wanted = true;
    ask();
  };
}

// Which arms take part.
function armChecks(ui, arms) {
  const box = make("fieldset", { class: "nd-checks" }, make("legend", {}, "networks"));
  const row = make("div");
  const inputs = arms.map(({ name }) => {
    const input = make("input", { type: "checkbox", value: name, "data-lm-suppress-shortcuts": "true" });
    input.addEventListener("change", () => {
      const names = inputs.filter((each) => each.checked).map((each) => each.value);
      if (names.length) change(ui.model, { arms: names });
      else input.checked = true; // somebody has to run
    });
    row.append(make("label", {}, input, name));
    return input;
  });
  ui.root.settings.set("arms", (text) => {
    const names = arms.map(({ name }) => name).filter((name) => text.split(",").includes(name));
    return names.length ? names : undefined;
  });
  const show = () => inputs.forEach((input) => (input.checked = ui.model.get("arms").includes(input.value)));
  ui.onChange(["arms"], show);
  show();
  box.append(row);
  return box;
}

// Plots. ------------------------------------------------------------------------------------------------------------

const place = (bySteps) => (record) => (bySteps ? record.step : record.seconds);

// From 0 to the end of the race, or of the longest line.
function axis(arms, bySteps) {
  const at = place(bySteps);
  const end = Math.max(bySteps ? STEPS : 1, ...arms.map((arm) => (arm.records.length ? at(arm.records.at(-1)) : 0)));
  const domain = [0, bySteps ? end : Math.ceil(2 * end) / 2];
  return { domain, label: bySteps ? "training step" : "seconds of training, here", ticks: ticksTo(domain[1]) };
}

const known = new Map(); // numbers as text are slow
function ticksTo(end) {
  if (!known.has(end)) known.set(end, roundTicks([0, end], 5));
  return known.get(end);
}

function line(arm, bySteps, value) {
  const points = arm.records.map((record) => [place(bySteps)(record), value(record)]);
  return points.filter(([, y]) => y !== null && Number.isFinite(y));
}

// Texts at the ends of lines, moved apart where they would meet: `height` says how many pixels a value stands below the
// top of the plot.
function labels(arms, points, height, text) {
  const ends = arms.map((arm, i) => ({ arm, end: points[i].at(-1) })).filter(({ end }) => end);
  ends.sort((a, b) => height(a.end[1]) - height(b.end[1]));
  let next = 0;
  return ends.map(({ arm, end }) => {
    const there = height(end[1]);
    const moved = Math.max(there, next);
    next = moved + 15;
    return { text: text(arm, end[1]), at: end, color: arm.ink, dx: 9, dy: moved - there + 4 };
  });
}

function courseOf(arms, bySteps, width) {
  const height = width < 360 ? 160 : 225;
  const points = arms.map((arm) => line(arm, bySteps, (record) => record.accuracy));
  const marks = linesOf(arms, points);
  arms.forEach(({ color, radius, shape }, i) => {
    const dots = points[i].filter(([at], k) => (bySteps && at % 10 === 0) || k === points[i].length - 1);
    marks.push({ dots, color, radius, shape });
  });
  const below = (value) => (1 - value / 100) * (height - 64);
  marks.push(...labels(arms, points, below, ({ name }, value) => `${name} ${value.toFixed(1)}`));
  const ticks = [0, 25, 50, 75, 100].map((at) => ({ at, text: String(at) }));
  return { height, box: { right: width - 72 }, x: axis(arms, bySteps), y: { domain: [0, 100], label: "held-out digits right, %", ticks }, marks };
}

function lossOf(arms, bySteps, width) {
  const height = 170;
  const points = arms.map((arm) => line(arm, bySteps, (record) => record.loss).filter(([, y]) => y > 0));
  const values = points.flat().map(([, y]) => y);
  const domain = [Math.min(0.02, ...values), Math.max(4, ...values)];
  const marks = linesOf(arms, points);
  marks.push(...arms.map(({ color, radius, shape }, i) => ({ dots: points[i].slice(-1), color, radius, shape })));
  const below = (value) => (Math.log(domain[1] / value) / Math.log(domain[1] / domain[0])) * (height - 64);
  marks.push(...labels(arms, points, below, ({ name }) => name));
  return { height, box: { right: width - 46 }, x: axis(arms, bySteps), y: { domain, log: true, label: "loss of a training step", ticks: decades(domain, 5) }, marks };
}

function linesOf(arms, points) {
  const lines = arms.map(({ name, color }, i) => ({ line: points[i], color, width: name === "ND" ? 2.5 : 2 }));
  return lines.filter(({ line }) => line.length > 1);
}

// Of what the weights of a layer meet; for ND a line begins at what comes in.
function whitenessOf(arms) {
  const marks = [];
  arms.forEach(({ name, records, color, ink, radius, shape }, place) => {
    const layers = records.at(-1)?.whiteness ?? [];
    layers.forEach(({ before, after }, i) => {
      const height = i + 1 + 0.25 * (place - (arms.length - 1) / 2); // beside the others of the layer
      if (after !== null) marks.push({ line: [[before, height], [after, height]], color, width: 2 });
      marks.push({ dots: [[after ?? before, height]], color, radius, shape });
      if (i === 0) marks.push({ text: name, at: [after ?? before, height], color: ink, dx: 9, dy: 4 });
    });
  });
  const ticks = [1, 2, 3].map((at) => ({ at, text: String(at) }));
  const across = [0, 0.25, 0.5, 0.75, 1].map((at) => ({ at, text: String(at) }));
  return { height: 170, x: { domain: [0, 1.04], label: "whiteness of its input", ticks: across }, y: { domain: [3.5, 0.5], label: "layer", ticks }, marks };
}

// Kernels. ----------------------------------------------------------------------------------------------------------

function kernelTiles(arms) {
  const root = make("div", { class: "nd-tiles" });
  const kinds = arms.flatMap(({ name, method }) => [[name, "weights", "w"], ...(method === "nd" ? [[name, "folded", "Dw"]] : [])]);
  const tiles = kinds.map(([name, kind, symbol]) => {
    const canvas = make("canvas", { role: "img", "aria-label": `The eight kernels ${symbol} of the first layer of ${name}` });
    const box = make("div", {}, make("span", {}, `${name} ${symbol}`), canvas);
    root.append(box);
    return { name, kind, canvas, box };
  });
  root.append(make("p", {}, `First kernels, blue less, red more than 0: w ±${LIMITS.weights}, Dw ±${LIMITS.folded}`));
  return {
    root,
    show(shown) {
      for (const { name, kind, canvas, box } of tiles) {
        const arm = shown.find((each) => each.name === name);
        box.hidden = !arm;
        const weights = arm?.records.at(-1)?.[kind];
        if (weights) paintKernels(canvas, weights, LIMITS[kind]);
      }
    },
  };
}

// Eight kernels of 3 x 3, four beside each other, with a pixel between them.
function paintKernels(canvas, weights, limit) {
  const [width, height] = [15, 7];
  const values = new Float64Array(width * height).fill(NaN);
  weights.forEach((weight, i) => {
    const [kernel, tap] = [Math.floor(i / 9), i % 9];
    const row = 4 * Math.floor(kernel / 4) + Math.floor(tap / 3);
    const column = 4 * (kernel % 4) + (tap % 3);
    values[row * width + column] = weight;
  });
  paintSigned(canvas, values, width, limit);
}

// Mistakes. ---------------------------------------------------------------------------------------------------------

// Digits that a network takes for another. One stays in the strip until all take it for what it is.
function mistakes(arms) {
  const names = make("div", { class: "nd-who", "aria-hidden": "true" }, make("span", {}, "says"), ...arms.map(({ name, ink }) => make("span", { style: `color: ${ink}` }, name)));
  const row = make("div", { class: "nd-digits", role: "img" });
  const root = make("div", { class: "nd-mistakes" }, names, row);
  const columns = Array.from({ length: MISTAKES }, () => {
    const column = make("div", {}, make("canvas"), ...arms.map(({ ink }) => make("b", { style: `color: ${ink}` })));
    row.append(column);
    return { column, digit: null };
  });
  let sentence = "";
  return {
    root,
    say: () => row.setAttribute("aria-label", sentence),
    show(shown, { labels: truth, of }) {
      const reports = arms.map((arm) => (shown.includes(arm) ? arm.records.at(-1) : undefined));
      const wrong = (i) => reports.filter((report) => report && report.predicted[i] !== truth[i]).length;
      const kept = new Set(columns.map(({ digit }) => digit).filter((digit) => digit !== null && wrong(digit)));
      const next = Array.from(truth.keys()).filter((i) => wrong(i) && !kept.has(i)).sort((a, b) => wrong(b) - wrong(a) || a - b);
      for (const each of columns) {
        if (!kept.has(each.digit)) {
          each.digit = next.shift() ?? null;
          each.column.style.visibility = each.digit === null ? "hidden" : "";
          if (each.digit !== null) paintGrey(each.column.firstChild, of(each.digit), SIDE, 255, 0);
        }
        if (each.digit === null) continue;
        reports.forEach((report, i) => {
          const said = report?.predicted[each.digit];
          const text = said === undefined ? "" : said === truth[each.digit] ? "✓" : String(said);
          const cell = each.column.children[i + 1];
          if (cell.textContent === text) return;
          cell.textContent = text;
          cell.className = text === "✓" ? "nd-right" : "";
        });
      }
      const told = columns.filter(({ digit }) => digit !== null).slice(0, 5).map(({ digit }) => {
        const said = arms.filter((_, i) => reports[i]).map(({ name }) => `${name} ${reports[arms.findIndex((arm) => arm.name === name)].predicted[digit]}`);
        return `a ${truth[digit]}: ${said.join(", ")}`;
      });
      sentence = told.length ? `Held-out digits and what the networks say. ${told.join("; ")}` : "Every held-out digit is right.";
    },
  };
}

// Words. ------------------------------------------------------------------------------------------------------------

function studied({ study, finding }) {
  const columns = [5, 10, 20, 30, 50, 100];
  const head = make("tr", {}, make("th", { scope: "col" }, "after steps"), ...columns.map((step) => make("th", { scope: "col" }, String(step))));
  const rows = Object.entries(study).map(([name, { rate, steps, mean }]) => {
    const cells = columns.map((step) => make("td", {}, mean[steps.indexOf(step)].toFixed(1)));
    return make("tr", {}, make("th", { scope: "row" }, `${name}, rate ${brief(rate, 3)}`), ...cells);
  });
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  const about = make("p", {}, make("strong", {}, "One race is an anecdote. "), finding);
  const source = "Runs in PyTorch, accuracy in percent. Digits: MNIST, by Yann LeCun and Corinna Cortes, CC BY-SA 3.0.";
  return make("div", { class: "nd-study" }, about, table, make("p", { class: "nd-source" }, source));
}

/** The last report of an arm before so many steps or seconds. */
const until = (arm, bySteps, end) => arm.records.findLast((record) => place(bySteps)(record) <= end);

function inWords(arms, bySteps, moving, paused) {
  const there = arms.filter((arm) => arm.records.length);
  if (there.length === 0) return "The networks are on their way: their first answer comes in a moment.";
  const end = Math.min(...there.map((arm) => place(bySteps)(arm.records.at(-1))));
  if (end === 0 && !moving) return "Nothing is learned yet: all networks begin with the same random weights. Press Play.";
  const found = there.map((arm) => ({ arm, ...until(arm, bySteps, end) })).sort((a, b) => b.accuracy - a.accuracy);
  const list = found.map(({ arm, accuracy, loss }) => (loss === null || Number.isFinite(loss) ? `${arm.name} ${accuracy.toFixed(1)} %` : `${arm.name} has diverged`));
  const when = bySteps ? `Step ${end} of ${STEPS}` : `After ${end.toFixed(1)} s of training each`;
  const held = found[0].predicted.length;
  let text = `${paused ? "Paused. " : ""}${when}: ${list.join(", ")} of ${held} held-out digits right.`;
  const there88 = there.map((arm) => ({ arm, record: arm.records.find((record) => record.accuracy >= GOAL) })).filter(({ record }) => record);
  there88.sort((a, b) => place(bySteps)(a.record) - place(bySteps)(b.record));
  if (there88.length) {
    const names = there88.map(({ arm, record }) => `${arm.name} ${bySteps ? record.step : `${record.seconds.toFixed(1)} s`}`);
    text += ` ${GOAL} % reached after ${bySteps ? "steps" : "seconds"}: ${names.join(", ")}.`;
  }
  return text;
}

export default { render };

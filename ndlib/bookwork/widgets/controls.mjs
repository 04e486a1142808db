// The frame of a widget and its controls: native inputs bound to the traits of the model, below the picture that they
// change.

import { make } from "./draw.mjs";
import { savePicture } from "./save.mjs";

// A name that no other element of the page has. Each widget brings its own copy of this module: counting would not do.
const uniqueName = () => `nd-${Math.random().toString(36).slice(2)}`;

/**
 * The parts of a widget, in the order in which they are read and in which the keyboard goes through them: something to
 * try, the picture, what it shows in words, presets, controls, and in `more` whatever matters less.
 *
 * On a telephone the picture stays in the window while the presets and controls below it are used.
 *
 * `model` is anywidget's model or the host's; what has to be undone when the widget goes is collected in `undo`.
 */
export function frame(el, { model, name, title, tryThis }) {
  const root = make("section", { class: `nd-widget nd-${name}`, "aria-label": title });
  const picture = make("div", { class: "nd-picture" });
  const controls = make("div", { class: "nd-controls" });
  const presets = make("div", { class: "nd-presets", role: "group", "aria-label": "Presets" });
  const readout = make("p", { class: "nd-readout", "aria-live": "polite" });
  const problem = make("p", { class: "nd-problem", role: "alert", hidden: "" });
  const more = make("div", { class: "nd-more" });
  const hint = make("span", {}, tryThis);
  const stage = make("div", { class: "nd-stage" }, picture, readout, problem, presets, controls);
  root.append(make("p", { class: "nd-try" }, make("strong", {}, "Try this. "), hint), stage, more);
  // What an address may say about the widget: for each trait a function from its text to a value, or to undefined.
  root.settings = new Map();
  el.append(root);
  const undo = [];
  return {
    model,
    name,
    root,
    picture,
    readout,
    more,
    controls,
    presets,
    undo,
    /** Something else to try. */
    suggest(text) {
      if (hint.textContent !== text) hint.textContent = text;
    },
    /** What the picture shows now, in words. */
    say(text) {
      if (readout.textContent !== text) readout.textContent = text;
    },
    /** What went wrong, in words; nothing takes the message away. */
    complain(text = "") {
      problem.textContent = text;
      problem.hidden = text === "";
    },
    /** Calls back when one of these traits changes, from whichever side. */
    onChange(traits, callback) {
      for (const trait of traits) {
        model.on(`change:${trait}`, callback);
        undo.push(() => model.off(`change:${trait}`, callback));
      }
    },
    destroy() {
      undo.forEach((step) => step());
      root.remove();
    },
  };
}

/** Sets traits and tells Python, where there is one. */
export function change(model, values) {
  for (const [trait, value] of Object.entries(values)) model.set(trait, value);
  model.save_changes();
}

// JupyterLab takes arrow keys from an input that does not carry this attribute itself.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

/**
 * A slider for a trait. `format` says a value in words. Where positions and values differ (a logarithmic slider, a list
 * of values), `toValue` and `toPosition` translate. Returns the input, whose range may be changed with `setRange`.
 */
export function slider(ui, { trait, label, min, max, step = 1, format, toValue = Number, toPosition = Number }) {
  const id = uniqueName();
  const input = make("input", { type: "range", id, min, max, step, ...OWN_KEYS });
  const shown = make("output", { for: id });
  const box = make("div", { class: "nd-slider" }, make("label", { for: id }, label), shown, input);
  ui.controls.append(box);

  function show() {
    const value = ui.model.get(trait);
    input.value = toPosition(value);
    shown.textContent = format(value);
    input.setAttribute("aria-valuetext", format(value));
  }
  input.addEventListener("input", () => change(ui.model, { [trait]: toValue(Number(input.value)) }));
  ui.onChange([trait], show);
  show();
  ui.root.settings.set(trait, (text) => {
    const position = toPosition(text === "null" ? null : text === "" ? NaN : Number(text));
    if (!(position >= Number(input.min) && position <= Number(input.max))) return undefined;
    const steps = Math.round((position - Number(input.min)) / step);
    return toValue(Number((Number(input.min) + steps * step).toPrecision(12)));
  });
  return {
    input,
    box,
    setRange(low, high) {
      input.min = low;
      input.max = high;
      show();
    },
  };
}

/** A slider for a positive number, each step the same factor: `perDecade` of them from 10^from to 10^to. */
export function logSlider(ui, { trait, label, from, to, perDecade = 4, format }) {
  const toValue = (position) => Number((10 ** (position / perDecade)).toPrecision(2));
  const toPosition = (value) => Math.round(perDecade * Math.log10(value));
  const range = { min: from * perDecade, max: to * perDecade };
  return slider(ui, { trait, label, ...range, format, toValue, toPosition });
}

/** One of a few values of a trait, as radio buttons; `options` are pairs of value and text. */
export function choice(ui, { trait, label, options }) {
  const name = uniqueName();
  const box = make("fieldset", { class: "nd-choice" }, make("legend", {}, label));
  const row = make("div", {});
  const inputs = options.map(([value, text]) => {
    const input = make("input", { type: "radio", name, value, ...OWN_KEYS });
    input.addEventListener("change", () => change(ui.model, { [trait]: value }));
    row.append(make("label", {}, input, make("span", {}, text)));
    return input;
  });
  box.append(row);
  ui.controls.append(box);
  const show = () => inputs.forEach((input) => (input.checked = input.value === String(ui.model.get(trait))));
  ui.onChange([trait], show);
  show();
  // What cannot be chosen now, such as a photograph that was not brought, cannot be asked for either.
  const offered = (input) => !input.parentElement.hidden && !box.hidden;
  ui.root.settings.set(trait, (text) => options.find(([value], i) => String(value) === text && offered(inputs[i]))?.[0]);
  return { box, inputs };
}

/** A button that sets several traits at once. */
export function preset(ui, text, values) {
  const button = make("button", { type: "button", ...OWN_KEYS }, text);
  button.addEventListener("click", () => change(ui.model, values));
  ui.presets.append(button);
  return button;
}

/** Two buttons: one brings back what the widget showed at first, the other saves what it shows now. */
export function reset(ui, traits, also = () => {}) {
  const values = Object.fromEntries(traits.map((trait) => [trait, ui.model.get(trait)]));
  const button = preset(ui, "Reset", values);
  button.addEventListener("click", also);
  const save = preset(ui, "Save picture", {});
  save.addEventListener("click", () => savePicture(ui).catch((error) => ui.complain(`The picture cannot be saved: ${error.message}.`)));
  ui.presets.append(make("span", { class: "nd-end" }, button, save));
}

/** Numbers that a reader sets in the picture itself, so that an address may have them too: {trait: [least, most, step]}. */
export function settable(ui, ranges) {
  for (const [trait, [least, most, step]] of Object.entries(ranges)) {
    ui.root.settings.set(trait, (text) => {
      const value = Number((Math.round(Number(text) / step) * step).toPrecision(12));
      return text !== "" && value >= least && value <= most ? value : undefined;
    });
  }
}

/**
 * Lets a pointer drag over an element: `move(event)` for every place.
 *
 * A finger that goes up or down scrolls the page, which the style sheet sees to, and moves nothing here: what came down
 * waits until it goes sideways or is lifted. On a grip, whose touch-action is none, a finger drags at once and anywhere.
 */
export function draggable(element, move) {
  element.addEventListener("selectstart", (event) => event.preventDefault()); // Safari would select the widget's text
  let waiting = null; // the event with which a finger came down
  const begin = () => {
    if (waiting) move(waiting);
    waiting = null;
  };
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    waiting = event;
    if (event.pointerType === "mouse" || getComputedStyle(event.target).touchAction === "none") begin();
  });
  element.addEventListener("pointermove", (event) => {
    if (!element.hasPointerCapture(event.pointerId)) return;
    const sideways = waiting && Math.abs(event.clientX - waiting.clientX) > Math.abs(event.clientY - waiting.clientY);
    if (waiting && !sideways) return;
    begin();
    move(event);
  });
  element.addEventListener("pointerup", begin);
}

/** Calls `move([x, y])` for an arrow key, y downwards, and `home()` for the key of this name. */
export function onArrows(element, move, home) {
  const steps = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
  element.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step && !(home && event.key === "Home")) return;
    event.preventDefault();
    event.stopPropagation();
    if (step) move(step);
    else home();
  });
}

/** The bytes of a trait as numbers: Python sends them as a DataView, which need not be aligned. */
export function floats(view, Type = Float64Array) {
  return new Type(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

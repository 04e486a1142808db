// The frame of a widget and its controls: native inputs bound to the traits of the model, below the picture that they change.

import { make } from "./draw.mjs";

// A name that no other element of the page has. Each widget brings its own copy of this module: counting would not do.
const uniqueName = () => `nd-${Math.random().toString(36).slice(2)}`;

const NARROW = 34; // rem, as in the style sheets

/**
 * The parts of a widget, in the order in which they are read: something to try, picture, controls, presets, readout.
 *
 * With `readoutFirst` the readout stands directly below the picture, then presets and controls.
 *
 * `more` is for pictures that matter less, and goes into `picture` after the others. On a telephone, where it would come
 * between a picture and the controls that change it, it stands below them, and above the readout, whose length changes.
 *
 * `model` is anywidget's model or the host's; what has to be undone when the widget goes is collected in `undo`.
 */
export function frame(el, { model, name, title, tryThis, readoutFirst = false }) {
  const root = make("section", { class: `nd-widget nd-${name}`, "aria-label": title });
  const picture = make("div", { class: "nd-picture" });
  const controls = make("div", { class: "nd-controls" });
  const presets = make("div", { class: "nd-presets", role: "group", "aria-label": "Presets" });
  const readout = make("p", { class: "nd-readout", "aria-live": "polite" });
  const problem = make("p", { class: "nd-problem", role: "alert", hidden: "" });
  const hint = make("span", {}, tryThis);
  const parts = readoutFirst ? [picture, readout, presets, controls] : [picture, controls, presets, readout];
  root.append(make("p", { class: "nd-try" }, make("strong", {}, "Try this. "), hint), ...parts, problem);
  el.append(root);

  // The element itself moves, so that the keyboard goes through the widget in the order that is seen.
  const more = make("div", { class: "nd-more" });
  function arrange() {
    const { paddingLeft, paddingRight } = getComputedStyle(root);
    const room = root.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
    const narrow = room < NARROW * parseFloat(getComputedStyle(document.documentElement).fontSize);
    if (!more.firstChild || more.parentElement === (narrow ? root : picture)) return;
    if (narrow) readout.before(more);
    else picture.append(more);
  }
  const observer = new ResizeObserver(arrange);
  observer.observe(root);

  const undo = [() => observer.disconnect()];
  return {
    model,
    root,
    picture,
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
  return { box, inputs };
}

/** A button that sets several traits at once. */
export function preset(ui, text, values) {
  const button = make("button", { type: "button", ...OWN_KEYS }, text);
  button.addEventListener("click", () => change(ui.model, values));
  ui.presets.append(button);
  return button;
}

/** A button that brings back what the widget showed at first. */
export function reset(ui, traits, also = () => {}) {
  const values = Object.fromEntries(traits.map((trait) => [trait, ui.model.get(trait)]));
  const button = preset(ui, "Reset", values);
  button.classList.add("nd-reset");
  button.addEventListener("click", also);
}

/**
 * Lets a pointer drag over an element: `move(event)` for every place.
 *
 * A finger that goes up or down scrolls the page, which the style sheet sees to, and moves nothing here: what came down
 * waits until it goes sideways or is lifted. On a grip, whose touch-action is none, a finger drags at once and anywhere.
 */
export function draggable(element, move) {
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

/** The bytes of a trait as numbers: Python sends them as a DataView, which need not be aligned. */
export function floats(view, Type = Float64Array) {
  return new Type(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

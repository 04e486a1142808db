// The frame of a widget and its controls: native inputs bound to the traits of the model, picture first.

import { make } from "./draw.mjs";

// A name that no other element of the page has. Each widget brings its own copy of this module: counting would not do.
const uniqueName = () => `nd-${Math.random().toString(36).slice(2)}`;

/**
 * The parts of a widget, in the order in which they are read: picture, controls, presets, readout, something to try.
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
  const hint = make("p", { class: "nd-try" }, make("strong", {}, "Try this. "), tryThis);
  root.append(picture, controls, presets, readout, problem, hint);
  el.append(root);

  const undo = [];
  return {
    model,
    root,
    picture,
    controls,
    presets,
    undo,
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
 * Lets a pointer drag over an element: `move(event)` for every place. A finger that moves up or down still scrolls the
 * page, which the style sheet sees to.
 */
export function draggable(element, move) {
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    move(event);
  });
  element.addEventListener("pointermove", (event) => {
    if (element.hasPointerCapture(event.pointerId)) move(event);
  });
}

/** The bytes of a trait as numbers: Python sends them as a DataView, which need not be aligned. */
export function floats(view, Type = Float64Array) {
  return new Type(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

// What every picture of the widgets is made of: plots as SVG, which takes its colours and its fonts from the page, and
// pixels on a canvas, which nothing recolours.

/** Colours of the methods, the same in every figure of the book; the style sheet has the blue, lighter on dark paper. */
export const COLORS = { none: "#777777", bn: "#E69F00", nd: "var(--nd-blue)", frozen: "#009E73" };

const NAMESPACE = "http://www.w3.org/2000/svg";

/** An HTML element with these attributes and children (nodes or text). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Calls `draw` once before the next frame, however often it is asked to. */
export function oncePerFrame(draw) {
  let asked = 0;
  return () => {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(draw);
  };
}

// Numbers as text. --------------------------------------------------------------------------------------------------

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** 10⁻⁵ for -5. */
export function powerOfTen(exponent) {
  const digits = [...String(Math.abs(exponent))].map((digit) => SUPERSCRIPTS[digit]).join("");
  return `10${exponent < 0 ? "⁻" : ""}${digits}`;
}

/** Two or three digits that can be read aloud: 0.14, −0.033, 1.3 × 10⁻⁵. */
export function brief(value, digits = 2) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size >= 0.001 && size < 100000) {
    const text = Number(size.toPrecision(digits));
    return sign + text.toLocaleString("en", { maximumFractionDigits: 8 });
  }
  const [mantissa, exponent] = size.toExponential(digits - 1).split("e");
  const factor = Number(mantissa) === 1 ? "" : `${Number(mantissa)} × `;
  return sign + factor + powerOfTen(Number(exponent));
}

// Plots. ------------------------------------------------------------------------------------------------------------

/**
 * A plot that fills the width of `host` and is drawn anew when that changes.
 *
 * `label` says in words what the picture shows. `describe(width)` returns what to draw in it:
 *   height                     pixels
 *   x, y                       axes: {domain: [from, to], log, label, ticks: [{at, text}]}; without ticks none is drawn
 *   box                        where the axes stand: {left, right, top, bottom}, pixels, if not where they do by default
 *   marks                      in the order of drawing:
 *     {line: [[x, y], ...], color, width, dash}
 *     {dots: [[x, y], ...], color, radius, opacity, shape}    round, or "square" or "diamond"
 *     {area: [[x, y], ...], color, opacity}
 *     {grip: [x, y], color, radius}                  a ring that a finger can drag in all directions
 *     {text, at: [x, y], color, anchor, dx, dy}      bold, or `plain`; "^(...)" in a text stands for a superscript
 * Returns {draw, point(event), destroy}; `point` gives the place of a pointer event in the units of the axes.
 */
export function plot(host, label, describe) {
  const svg = document.createElementNS(NAMESPACE, "svg");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  svg.setAttribute("class", "nd-plot");
  // Chromium does not heed the touch-action of a part of an SVG: an element lies over it.
  const grip = make("div", { class: "nd-grip", hidden: "" });
  host.style.position = "relative";
  host.append(svg, grip);
  let scales;

  function draw() {
    const width = Math.round(host.clientWidth);
    if (width === 0) return;
    const picture = describe(width);
    const box = { left: 46, right: width - 12, top: 24, bottom: picture.height - 40, ...picture.box };
    scales = { x: scale(picture.x, box.left, box.right), y: scale(picture.y, box.bottom, box.top) };
    svg.setAttribute("viewBox", `0 0 ${width} ${picture.height}`);
    svg.setAttribute("height", picture.height);
    const held = picture.marks.find((mark) => mark.grip)?.grip;
    grip.hidden = !held;
    if (held) [grip.style.left, grip.style.top] = [scales.x(held[0]), scales.y(held[1])].map((place) => `${place}px`);
    svg.innerHTML = (picture.x.ticks ? axes(picture, box, scales) : "") + picture.marks.map((mark) => drawMark(mark, scales)).join("");
  }

  const observer = new ResizeObserver(draw);
  observer.observe(host);
  return {
    svg,
    draw,
    point(event) {
      const { left, top } = svg.getBoundingClientRect();
      return [scales.x.inverse(event.clientX - left), scales.y.inverse(event.clientY - top)];
    },
    destroy: () => observer.disconnect(),
  };
}

function scale({ domain, log }, from, to) {
  const [a, b] = log ? domain.map(Math.log10) : domain;
  const place = (value) => from + (((log ? Math.log10(value) : value) - a) / (b - a)) * (to - from);
  place.inverse = (pixel) => {
    const value = a + ((pixel - from) / (to - from)) * (b - a);
    return log ? 10 ** value : value;
  };
  return place;
}

/** Ticks at powers of ten, so few that their texts have room. */
export function decades([from, to], room) {
  const first = Math.ceil(Math.log10(from) - 1e-9);
  const last = Math.floor(Math.log10(to) + 1e-9);
  const step = Math.max(1, Math.ceil((last - first + 1) / room));
  const ticks = [];
  for (let exponent = last; exponent >= first; exponent -= step) {
    ticks.push({ at: 10 ** exponent, text: Math.abs(exponent) < 2 ? String(10 ** exponent) : powerOfTen(exponent) });
  }
  return ticks;
}

/** About so many ticks at round numbers. */
export function roundTicks([from, to], count) {
  const raw = (to - from) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const ticks = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + 1e-9 * step; i++) {
    ticks.push({ at: i * step, text: brief(i * step, 3) });
  }
  return ticks;
}

function axes({ x, y }, box, scales) {
  const parts = [];
  for (const { at, text } of y.ticks) {
    const height = scales.y(at).toFixed(1);
    parts.push(`<path class="nd-grid" d="M${box.left} ${height}H${box.right}"/>`);
    parts.push(`<text class="nd-tick" x="${box.left - 7}" y="${height}" dy=".35em" text-anchor="end">${text}</text>`);
  }
  for (const { at, text } of x.ticks) {
    const place = scales.x(at).toFixed(1);
    parts.push(`<path class="nd-grid" d="M${place} ${box.top}V${box.bottom}"/>`);
    parts.push(`<text class="nd-tick" x="${place}" y="${box.bottom + 17}" text-anchor="middle">${text}</text>`);
  }
  parts.push(`<path class="nd-axis" d="M${box.left} ${box.bottom}H${box.right}"/>`);
  // The name of the upright axis stands above it, where it is read without turning the head.
  parts.push(`<text class="nd-label" x="${box.left - 38}" y="12">${rich(y.label)}</text>`);
  const below = x.ticks.length ? 35 : 18;
  parts.push(`<text class="nd-label" x="${box.right}" y="${box.bottom + below}" text-anchor="end">${rich(x.label)}</text>`);
  return parts.join("");
}

const SHAPES = {
  round: (radius) => ["h0", "round", 2 * radius],
  square: (radius) => ["h0", "square", 2 * radius],
  diamond: (radius) => [`m0 ${-radius / 2}l${radius / 2} ${radius / 2}l${-radius / 2} ${radius / 2}l${-radius / 2} ${-radius / 2}z`, "butt", radius],
};

function drawMark(mark, scales) {
  const place = ([a, b]) => `${scales.x(a).toFixed(1)} ${scales.y(b).toFixed(1)}`;
  if (mark.line) {
    const dash = mark.dash ? ` stroke-dasharray="${mark.dash}"` : "";
    const path = `M${mark.line.map(place).join("L")}`;
    return `<path fill="none" stroke="${mark.color}" stroke-width="${mark.width ?? 2}"${dash} d="${path}"/>`;
  }
  if (mark.dots) {
    // One path for all: a line of no length with a round end is a dot; a diamond is an outline as thick as it is wide.
    const [outline, ends, thick] = SHAPES[mark.shape ?? "round"](mark.radius);
    const path = mark.dots.map((dot) => `M${place(dot)}${outline}`).join("");
    const style = `stroke-width="${thick}" stroke-linecap="${ends}" opacity="${mark.opacity ?? 1}"`;
    return `<path fill="none" stroke="${mark.color}" ${style} d="${path}"/>`;
  }
  if (mark.area) {
    return `<path fill="${mark.color}" opacity="${mark.opacity}" d="M${mark.area.map(place).join("L")}Z"/>`;
  }
  if (mark.grip) {
    return `<circle fill="var(--nd-paper)" stroke="${mark.color}" stroke-width="3.5" r="${mark.radius}" transform="translate(${place(mark.grip)})"/>`;
  }
  const [left, top] = [scales.x(mark.at[0]) + (mark.dx ?? 0), scales.y(mark.at[1]) + (mark.dy ?? 0)];
  const style = `text-anchor="${mark.anchor ?? "start"}" style="fill:${mark.color}"`;
  return `<text class="${mark.plain ? "nd-remark" : "nd-name"}" x="${left.toFixed(1)}" y="${top.toFixed(1)}" ${style}>${rich(mark.text)}</text>`;
}

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };

function rich(text) {
  const safe = text.replace(/[&<>]/g, (character) => ESCAPES[character]);
  return safe.replace(/\^\((.*?)\)/g, '<tspan dy="-.4em" font-size=".75em">$1</tspan><tspan dy=".3em">&#8203;</tspan>');
}

// Pixels. -----------------------------------------------------------------------------------------------------------

// ColorBrewer's RdBu from blue to red, between which one interpolates: matplotlib's RdBu_r, as in the figures.
const DIVERGING = [
  [5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [247, 247, 247],
  [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31],
];
// On dark paper each half is turned around: what is nearly zero is dark, and what is strong is light.
const DARK = [...DIVERGING.slice(0, 5).reverse(), [20, 24, 30], ...DIVERGING.slice(6).reverse()];

/** Is the paper dark, of the book or of JupyterLab? */
export const onDark = () =>
  document.documentElement.dataset.theme === "dark" || document.body.dataset.jpThemeLight === "false";

/** The colour of a value between -1 (blue) and 1 (red), white at 0 or nearly black: [red, green, blue], each 0 to 255. */
export function diverging(value, dark = false) {
  const colors = dark ? DARK : DIVERGING;
  const place = (Math.min(1, Math.max(-1, value)) + 1) * 5;
  const index = Math.min(9, Math.floor(place));
  const [low, high] = [colors[index], colors[index + 1]];
  return low.map((part, i) => Math.round(part + (place - index) * (high[i] - part)));
}

/** The scale beside a kernel, from blue to red. */
export function signedBar() {
  const canvas = make("canvas", { class: "nd-bar", "aria-hidden": "true" });
  paintSigned(canvas, Array.from({ length: 101 }, (_, i) => i - 50), 101, 50);
  return canvas;
}

/**
 * Paints values, row after row, one pixel each; the style sheet enlarges them without smoothing. Where there is no number
 * nothing is painted. When the paper changes, the picture is painted again.
 */
export function paintSigned(canvas, values, width, limit) {
  if (!canvas.repaint) whenPaperChanges(canvas);
  canvas.repaint = () => {
    const dark = onDark();
    paint(canvas, values.length, width, (pixels) => {
      values.forEach((value, i) => (Number.isNaN(value) ? pixels.fill(0, 4 * i, 4 * i + 4) : pixels.set(diverging(value / limit, dark), 4 * i)));
    });
  };
  canvas.repaint();
}

let papers; // canvases that are painted anew; those that nothing else holds are forgotten
function whenPaperChanges(canvas) {
  if (!papers) {
    papers = new Set();
    const observer = new MutationObserver(() => {
      for (const held of papers) {
        const each = held.deref();
        if (each) each.repaint();
        else papers.delete(held);
      }
    });
    const options = { attributeFilter: ["data-theme", "data-jp-theme-light"] };
    for (const element of [document.documentElement, document.body]) observer.observe(element, options);
  }
  papers.add(new WeakRef(canvas));
}

/** Paints grey pixels: `black` and `white` are the values shown so. */
export function paintGrey(canvas, values, width, black, white) {
  const factor = 255 / (white - black);
  paint(canvas, values.length, width, (pixels) => {
    for (let i = 0; i < values.length; i++) {
      pixels[4 * i] = pixels[4 * i + 1] = pixels[4 * i + 2] = (values[i] - black) * factor;
    }
  });
}

/** Paints a picture of three planes with values from 0 to 1. */
export function paintColour(canvas, planes, width) {
  paint(canvas, planes[0].length, width, (pixels) => {
    planes.forEach((plane, c) => plane.forEach((value, i) => (pixels[4 * i + c] = 255 * value)));
  });
}

function paint(canvas, count, width, fill) {
  const height = count / width;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const image = new ImageData(width, height);
  image.data.fill(255);
  fill(image.data);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

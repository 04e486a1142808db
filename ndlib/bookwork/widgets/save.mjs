// What a widget shows, as a file: its picture and the words beneath it, drawn once more on a canvas.

import { make } from "./draw.mjs";

const SCALE = 2; // pixels of the file to one of the page
const MARGIN = 12;

/** Has the browser save the picture of a widget, with its readout, as a PNG. */
export async function savePicture(ui) {
  const canvas = await pictureOf([ui.picture, ui.readout], getComputedStyle(ui.root).getPropertyValue("--nd-paper"));
  const blob = await new Promise((resolve) => canvas.toBlob(resolve));
  const link = make("a", { href: URL.createObjectURL(blob), download: `${ui.name}.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** These elements as they stand on the page, on a canvas. */
export async function pictureOf(elements, paper) {
  const boxes = elements.map((element) => element.getBoundingClientRect());
  const edge = (side, most) => most(...boxes.map((box) => box[side]));
  const [left, top] = [edge("left", Math.min) - MARGIN, edge("top", Math.min) - MARGIN];
  const size = [edge("right", Math.max) + MARGIN - left, edge("bottom", Math.max) + MARGIN - top];
  const [width, height] = size.map((length) => Math.ceil(SCALE * length));
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d");
  // A page may state its paper by the name of a variable: a rule that asks for the background resolves it.
  const sheet = make("span", { style: `background: ${paper}` });
  elements[0].append(sheet);
  context.fillStyle = getComputedStyle(sheet).backgroundColor;
  sheet.remove();
  context.fillRect(0, 0, width, height);
  context.scale(SCALE, SCALE);
  context.translate(-left, -top);
  for (const element of elements) await drawElement(context, element);
  return canvas;
}

async function drawElement(context, element) {
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  if (style.display === "none" || (box.width === 0 && style.display !== "contents")) return;
  const seen = style.visibility !== "hidden" && !element.matches("input");
  context.save();
  if (style.filter !== "none") context.filter = style.filter;
  if (style.mixBlendMode !== "normal") context.globalCompositeOperation = style.mixBlendMode;
  if (seen) {
    drawBox(context, style, box);
    if (element.matches("canvas")) drawCanvas(context, style, box, element);
    if (element.matches("svg")) await drawSvg(context, style, box, element);
  }
  context.restore();
  if (element.matches("svg, canvas")) return;
  context.save();
  if (style.overflowX === "hidden") {
    context.beginPath();
    context.rect(box.left, box.top, box.width, box.height);
    context.clip();
  }
  for (const child of element.childNodes) {
    if (child.nodeType === Node.ELEMENT_NODE) await drawElement(context, child);
    else if (child.nodeType === Node.TEXT_NODE && seen) drawText(context, style, child);
  }
  context.restore();
}

function drawBox(context, style, box) {
  context.fillStyle = style.backgroundColor;
  context.fillRect(box.left, box.top, box.width, box.height);
  const lines = [
    [style.outlineStyle, parseFloat(style.outlineWidth), style.outlineColor],
    [style.borderTopStyle, parseFloat(style.borderTopWidth), style.borderTopColor],
  ];
  for (const [kind, thick, color] of lines) {
    if (kind === "none" || !thick) continue;
    Object.assign(context, { strokeStyle: color, lineWidth: thick });
    context.strokeRect(box.left + thick / 2, box.top + thick / 2, box.width - thick, box.height - thick);
  }
}

function drawCanvas(context, style, box, canvas) {
  const inset = /inset\((.*)\)/.exec(style.clipPath);
  if (inset) {
    const parts = inset[1].split(" ").map((part) => parseFloat(part) / (part.endsWith("%") ? 100 : 1));
    const cut = inset[1].includes("%") ? parts.at(-1) * box.width : parts.at(-1); // the left edge is the only one that moves
    context.beginPath();
    context.rect(box.left + cut, box.top, box.width - cut, box.height);
    context.clip();
  }
  context.imageSmoothingEnabled = style.imageRendering !== "pixelated";
  let { left, top, width, height } = box;
  if (style.objectFit === "contain") {
    const factor = Math.min(width / canvas.width, height / canvas.height);
    left += (width - factor * canvas.width) / 2;
    top += (height - factor * canvas.height) / 2;
    [width, height] = [factor * canvas.width, factor * canvas.height];
  }
  context.drawImage(canvas, left, top, width, height);
}

const PAINT = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "opacity", "paint-order"];
const LETTERS = ["font-family", "font-size", "font-weight", "text-anchor"];

// A drawing outside of the page has no style sheet: what that says is written into a copy.
async function drawSvg(context, style, box, svg) {
  const copy = svg.cloneNode(true);
  const [from, to] = [svg, copy].map((root) => [...root.querySelectorAll("*")]);
  from.forEach((part, i) => {
    const computed = getComputedStyle(part);
    to[i].setAttribute("style", [...PAINT, ...LETTERS].map((name) => `${name}:${computed.getPropertyValue(name)}`).join(";"));
  });
  for (const [name, value] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", width: box.width, height: box.height })) copy.setAttribute(name, value);
  copy.style.overflow = "visible";
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
  await image.decode();
  context.drawImage(image, box.left, box.top, box.width, box.height);
}

// Word by word, as the page has broken the lines.
function drawText(context, style, node) {
  Object.assign(context, { fillStyle: style.color, font: `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`, textBaseline: "alphabetic" });
  for (const { 0: word, index } of node.data.matchAll(/\S+/g)) {
    const range = document.createRange();
    range.setStart(node, index);
    range.setEnd(node, index + word.length);
    const { left, bottom, width } = range.getBoundingClientRect();
    if (width) context.fillText(word, left, bottom - context.measureText(word).fontBoundingBoxDescent);
  }
}

// A picture that a reader brings, as a file, from the camera or drawn: read and checked in the browser, and sent nowhere.

import { make, paintGrey } from "./draw.mjs";

const SMALLEST = 32; // pixels a side
const LUMINANCE = [0.2126, 0.7152, 0.0722]; // of red, green and blue, as in ndlib.data

/** A picture from the bytes of a file that the widget carries: its three planes and its size. */
export async function decode(view, type) {
  return planesOf(await createImageBitmap(new Blob([view], { type })), Infinity);
}

/**
 * A reader's picture with at most `area` pixels: {planes, width, height, remarks}; the remarks say what was done to it.
 * Throws an Error with a message for the reader where it cannot be used.
 */
async function readPhotograph(file, area) {
  const name = `“${file.name}”`;
  if (file.type && !file.type.startsWith("image/")) throw new Error(`${name} is not a picture. Choose a JPEG, PNG or WebP file.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${name} cannot be read: it is damaged, too large or of a kind that this browser does not know.`);
  }
  const { width, height } = bitmap;
  const picture = planesOf(bitmap, area);
  if (Math.min(picture.width, picture.height) < SMALLEST) {
    throw new Error(`${name} has ${width} × ${height} pixels: too few, or too long and narrow. Take one with ${SMALLEST} or more a side.`);
  }
  const [red, green, blue] = picture.planes;
  if (!varied(picture)) {
    throw new Error(`${name} is of one colour only: nothing in it varies, so there is nothing to learn from it.`);
  }
  const remarks = [];
  if (picture.width < width) {
    const size = (width * height) / 1e6;
    remarks.push(`It was scaled from ${size < 1 ? size.toFixed(2) : size.toFixed(0)} megapixels to ${picture.width} × ${picture.height}.`);
  }
  if (picture.transparent) remarks.push("Its transparent parts lie on white.");
  if (red.every((value, i) => Math.abs(value - green[i]) + Math.abs(value - blue[i]) < 0.02)) {
    remarks.push("It is grey: its three colours are one and the same.");
  }
  return { ...picture, remarks };
}

/** The grey picture of three planes. */
export function luminance(planes) {
  return Float32Array.from(planes[0], (_, i) => LUMINANCE.reduce((sum, weight, c) => sum + weight * planes[c][i], 0));
}

function spread(plane) {
  return plane.reduce((a, b) => Math.max(a, b)) - plane.reduce((a, b) => Math.min(a, b));
}

const STRIP = 1 << 20; // pixels that are read at a time

// The three planes of a picture, with at most `area` pixels: each the average of the area that it covers, which is the
// same in all browsers, as their own ways of making a picture smaller are not.
function planesOf(bitmap, area) {
  const factor = Math.min(1, Math.sqrt(area / (bitmap.width * bitmap.height)));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * factor)));
  const planes = [0, 1, 2].map(() => new Float32Array(width * height));
  const across = spans(bitmap.width, width);
  const down = spans(bitmap.height, height);
  const line = new Float64Array(3 * width); // one row of the picture, already as narrow as the result
  let transparent = false;
  const rows = Math.max(1, Math.min(bitmap.height, Math.floor(STRIP / bitmap.width)));
  const canvas = make("canvas", { width: bitmap.width, height: rows });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let to = 0; // the row of the result that is growing
  const add = (row, share) => {
    planes.forEach((plane, c) => {
      for (let x = 0; x < width; x++) plane[row * width + x] += share * line[3 * x + c];
    });
  };
  for (let top = 0; top < bitmap.height; top += rows) {
    const count = Math.min(rows, bitmap.height - top);
    context.clearRect(0, 0, bitmap.width, rows);
    context.drawImage(bitmap, 0, top, bitmap.width, count, 0, 0, bitmap.width, count);
    const { data } = context.getImageData(0, 0, bitmap.width, count);
    for (let y = 0; y < count; y++) {
      transparent = narrowed(data.subarray(4 * bitmap.width * y, 4 * bitmap.width * (y + 1)), across, line) || transparent;
      // A row of the picture is a part of one row of the result, or of two.
      const end = down[to + 1];
      const inside = Math.min(1, end - (top + y));
      add(to, inside * (height / bitmap.height));
      if (top + y + 1 >= end - 1e-9) to += 1;
      if (inside < 1 && to < height) add(to, (1 - inside) * (height / bitmap.height));
    }
  }
  return { planes, width, height, transparent };
}

// Where each of `to` equal parts of `from` pixels begins, and where the last one ends.
const spans = (from, to) => Float64Array.from({ length: to + 1 }, (_, i) => (i * from) / to);

// Averages of a row of pixels over these spans, red, green and blue in turn, 0 to 1. Transparent ones lie on white. True
// if there are any. Sums of whole pixels are sums of whole numbers: 50 megapixels take a moment and not a minute.
function narrowed(data, edges, line) {
  let transparent = false;
  const [red, green, blue] = [0, 1, 2].map((c) => (x, share) => {
    const opacity = data[4 * x + 3];
    return share * (255 - opacity + (opacity * data[4 * x + c]) / 255);
  });
  for (let t = 0; t + 1 < edges.length; t++) {
    const [from, end] = [edges[t], edges[t + 1]];
    const [first, last] = [Math.ceil(from - 1e-9), Math.floor(end + 1e-9)];
    let [r, g, b] = [0, 0, 0];
    for (let x = first, i = 4 * first; x < last; x++, i += 4) {
      const opacity = data[i + 3];
      if (opacity === 255) {
        r += data[i];
        g += data[i + 1];
        b += data[i + 2];
      } else {
        transparent = true;
        r += red(x, 1);
        g += green(x, 1);
        b += blue(x, 1);
      }
    }
    for (const [x, share] of [[first - 1, first - from], [last, end - last]]) {
      if (share < 1e-9) continue;
      transparent ||= data[4 * x + 3] < 255;
      r += red(x, share);
      g += green(x, share);
      b += blue(x, share);
    }
    const scale = 1 / (255 * (end - from));
    line[3 * t] = scale * r;
    line[3 * t + 1] = scale * g;
    line[3 * t + 2] = scale * b;
  }
  return transparent;
}

const PRIVATE = "Your picture never leaves this page.";
const KEYS = { "data-lm-suppress-shortcuts": "true" };
const NO_CAMERA = "This page has no camera: browsers give one only to pages of https, and not to the frame of a notebook. A photograph or a drawing does as well.";
const REFUSALS = {
  NotAllowedError: "The camera was refused, and nothing was taken. A photograph or a drawing does as well.",
  NotFoundError: "There is no camera here. A photograph or a drawing does as well.",
  NotReadableError: "The camera is used by another programme.",
};
const PAUSE = 60; // milliseconds between two pictures of the camera, at least
const PAD = [192, 144]; // pixels of a drawing

/**
 * Buttons with which a reader brings a picture: a file, the camera or a drawing. A file may be dropped on the widget too.
 *
 * `use({planes, width, height}, wanted)` shows it; a promise that it returns is waited for before the next picture of the
 * camera, and `wanted()` tells it later whether the reader still wants this picture.
 * `remark` says what the widget does with it. Pictures have at most `area` pixels. Returns {forget}, which stops and
 * closes everything.
 */
export function ownPictures(ui, { area, use, remark = "" }) {
  const about = make("span", { class: "nd-private", "aria-live": "polite" }, PRIVATE);
  const tell = (...remarks) => (about.textContent = [PRIVATE, ...remarks, remark].filter(Boolean).join(" "));
  let session = 0; // until everything is forgotten
  const wanted = (mine) => () => mine === session;
  async function show(picture) {
    if (!varied(picture)) return;
    try {
      await use(picture, wanted(session));
    } catch (error) {
      ui.complain(error.message);
    }
  }
  const camera = cameraButton(ui, area, show, tell);
  const pad = drawingPad(ui, area, show, tell);
  async function onFile(file) {
    forget();
    const mine = session;
    try {
      const { remarks, ...picture } = await readPhotograph(file, area);
      if (mine !== session) return;
      await use(picture, wanted(mine));
      tell(...remarks);
    } catch (error) {
      ui.complain(error.message);
    }
  }
  photographButton(ui.presets, ui.root, onFile);
  ui.presets.append(camera.button, pad.button, about);
  function forget() {
    session += 1;
    ui.complain();
    camera.stop();
    pad.close();
    about.textContent = PRIVATE;
  }
  ui.undo.push(camera.stop);
  return { forget };
}

const varied = ({ planes }) => Math.max(...planes.map(spread)) >= 0.004;

// The camera is asked for when its button is pressed, and switched off when it is pressed again.
function cameraButton(ui, area, show, tell) {
  const button = make("button", { type: "button", "aria-pressed": "false", ...KEYS }, "Camera");
  let stream = null;
  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    button.textContent = "Camera";
    button.setAttribute("aria-pressed", "false");
  }
  async function start() {
    ui.complain();
    if (!navigator.mediaDevices?.getUserMedia) return ui.complain(NO_CAMERA);
    button.textContent = "Stop camera";
    button.setAttribute("aria-pressed", "true");
    try {
      const mine = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, facingMode: "environment" } });
      stream = mine;
      if (button.getAttribute("aria-pressed") === "false") return stop(); // the reader has stopped before answering
      const video = make("video", { playsinline: "" });
      Object.assign(video, { muted: true, srcObject: mine });
      await video.play();
      tell("The camera is on until you stop it.");
      while (stream === mine) {
        const bitmap = document.hidden ? null : await createImageBitmap(video);
        if (bitmap && stream === mine) await show(planesOf(bitmap, area));
        bitmap?.close();
        await new Promise((next) => setTimeout(next, PAUSE));
      }
    } catch (error) {
      stop();
      ui.complain(REFUSALS[error.name] ?? `The camera cannot be used: ${error.message}`);
    }
  }
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-pressed") === "false") return start();
    stop();
    tell("The last picture of the camera stays.");
  });
  return { button, stop };
}

const PATTERNS = {
  stripes: (x) => (x % 12 < 6 ? 0 : 255),
  checks: (x, y) => ((Math.floor(x / 8) + Math.floor(y / 8)) % 2 ? 0 : 255),
  dots: (x, y) => (Math.hypot((x % 16) - 8, (y % 16) - 8) < 4 ? 0 : 255),
  noise: () => 255 * Math.random(),
};

// Paper to draw on with a finger or a mouse; patterns are there for the keyboard too.
function drawingPad(ui, area, show, tell) {
  const button = make("button", { type: "button", "aria-expanded": "false", ...KEYS }, "Draw");
  const paper = make("canvas", { width: PAD[0], height: PAD[1], role: "img", "aria-label": "Paper to draw on" });
  const row = make("div", { class: "nd-run" });
  const box = make("div", { class: "nd-pad", hidden: "" }, paper, row);
  ui.presets.after(box);
  const pen = paper.getContext("2d", { willReadFrequently: true });
  let [busy, wanted] = [false, false]; // of several wishes only the last one counts
  async function give() {
    wanted = true;
    if (busy) return;
    busy = true;
    while (wanted) {
      wanted = false;
      await show(planesOf(paper, area));
    }
    busy = false;
  }
  const blank = () => {
    Object.assign(pen, { fillStyle: "#fff", strokeStyle: "#000", lineWidth: 7, lineCap: "round", lineJoin: "round" });
    pen.fillRect(0, 0, ...PAD);
  };
  const fill = (pattern) => {
    const values = Array.from({ length: PAD[0] * PAD[1] }, (_, i) => pattern(i % PAD[0], Math.floor(i / PAD[0])));
    paintGrey(paper, values, PAD[0], 0, 255);
  };
  const add = (text, act) => {
    const made = make("button", { type: "button", ...KEYS }, text);
    made.addEventListener("click", act);
    row.append(made);
  };
  for (const [name, pattern] of Object.entries(PATTERNS)) add(name, () => (fill(pattern), give()));
  add("Clear", blank);
  blank();
  const at = (event) => {
    const { left, top, width, height } = paper.getBoundingClientRect();
    return [((event.clientX - left) / width) * PAD[0], ((event.clientY - top) / height) * PAD[1]];
  };
  paper.addEventListener("pointerdown", (event) => {
    paper.setPointerCapture(event.pointerId);
    pen.beginPath();
    pen.moveTo(...at(event));
    const [x, y] = at(event);
    pen.lineTo(x + 0.1, y); // a dot
    pen.stroke();
    give();
  });
  paper.addEventListener("pointermove", (event) => {
    if (!paper.hasPointerCapture(event.pointerId)) return;
    pen.lineTo(...at(event));
    pen.stroke();
    give();
  });
  const open = (on) => {
    box.hidden = !on;
    button.setAttribute("aria-expanded", String(on));
  };
  button.addEventListener("click", () => {
    open(box.hidden);
    if (!box.hidden) tell("Draw on the paper below.");
  });
  return { button, close: () => open(false) };
}

// Calls back with a file that a reader chooses with this button or drops on this element.
function photographButton(place, target, onFile) {
  const input = make("input", { type: "file", accept: "image/*", ...KEYS });
  input.addEventListener("change", () => {
    if (input.files.length) onFile(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  place.append(make("label", { class: "nd-file" }, input, make("span", {}, "Own photo …")));
  target.addEventListener("dragover", (event) => {
    event.preventDefault();
    target.classList.add("nd-dropping");
  });
  target.addEventListener("dragleave", () => target.classList.remove("nd-dropping"));
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    target.classList.remove("nd-dropping");
    const [file] = event.dataTransfer.files;
    if (file) onFile(file);
  });
}

// The picture: zoom and pan, before and after, strokes. It knows nothing of the server.

import { drawMarks } from "./layers.js";
import { Pointing } from "./pointing.js";

const MOST_ZOOM = 16; // screen pixels for one of the photo
const PAINTS = new Set(["brush", "gray", "version", "erase"]);
const VEIL_PX = 8; // from one line of the veil to the next, on the screen
const HANDLE_PX = 28;

const $ = (id) => document.getElementById(id);

export class Stage extends EventTarget {
  constructor() {
    super();
    this.box = $("stage");
    this.size = { width: 1, height: 1 };
    this.scale = 1;
    this.left = this.top = 0;
    this.split = 0; // how much of the width shows the original photo, 0..1
    this.tool = "move";
    this.marks = [];
    this.color = "#a0523c";
    this.source = null; // of strokes from a version, see `drawMarks`
    this.radius = 10; // of the brush, in the photo's pixels
    this.showMarks = false;
    this.cross = null; // of the keyboard, in the photo's pixels
    this.pointer = null;
    this.stroke = null;
    this.isColorChosen = false; // before it is, a finger asks for colors and does not paint
    this._listen();
    new Pointing(this);
    new ResizeObserver(() => this.resize()).observe(this.box);
  }

  /** Shows another photo. */
  open(width, height, label) {
    this.size = { width, height };
    this.cross = null;
    this.stroke = null;
    $("picture").style.width = `${width}px`;
    $("picture").style.height = `${height}px`;
    this.box.setAttribute("aria-label", label);
    this.fit();
  }

  async show(which, url) {
    const image = $(which);
    if (!url) {
      image.removeAttribute("src");
      return;
    }
    const next = new Image();
    next.src = url;
    await next.decode().catch(() => {});
    image.src = url;
    await image.decode().catch(() => {});
  }

  /** Hatches the picture where an image, by its address, is opaque; not at all without one. */
  setVeil(url) {
    const veil = $("veil");
    veil.hidden = !url;
    veil.style.maskImage = veil.style.webkitMaskImage = url ? `url("${url}")` : "";
  }

  setTool(tool) {
    this.tool = tool;
    this.box.dataset.tool = tool;
    this.draw();
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.box;
    this.scale = Math.min(width / this.size.width, height / this.size.height, 4);
    this.left = (width - this.size.width * this.scale) / 2;
    this.top = (height - this.size.height * this.scale) / 2;
    this.fitted = true;
    this.place();
  }

  resize() {
    const canvas = $("marks"), ratio = devicePixelRatio || 1;
    canvas.width = Math.round(this.box.clientWidth * ratio);
    canvas.height = Math.round(this.box.clientHeight * ratio);
    if (this.fitted) this.fit();
    else this.place();
  }

  /** Zooms by a factor, so that a point of the box stays where it is. */
  zoom(factor, x = this.box.clientWidth / 2, y = this.box.clientHeight / 2) {
    const least = Math.min(this.box.clientWidth / this.size.width, this.box.clientHeight / this.size.height, 1) / 2;
    const scale = Math.min(MOST_ZOOM, Math.max(least, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.place();
  }

  pan(x, y) {
    this.left += x;
    this.top += y;
    this.fitted = false;
    this.place();
  }

  place() {
    const width = this.size.width * this.scale, height = this.size.height * this.scale;
    const keep = 60; // some of the picture stays in sight
    this.left = Math.min(this.box.clientWidth - keep, Math.max(keep - width, this.left));
    this.top = Math.min(this.box.clientHeight - keep, Math.max(keep - height, this.top));
    $("picture").style.transform = `translate(${this.left}px, ${this.top}px) scale(${this.scale})`;
    $("veil").style.setProperty("--line-px", `${VEIL_PX / this.scale}px`);
    $("picture").style.imageRendering = this.scale >= 4 ? "pixelated" : "auto";
    this.divide();
    this.draw();
    this.dispatchEvent(new Event("view"));
  }

  setSplit(split) {
    this.split = Math.min(1, Math.max(0, split));
    this.divide();
  }

  /** Shows the whole photo as it was, or in color again. */
  compare() {
    this.setSplit(this.split < 0.5 ? 1 : 0);
  }

  divide() {
    $("before").style.clipPath = `inset(0 ${100 - 100 * this.split}% 0 0)`;
    const { clientWidth: width } = this.box, at = this.left + this.split * this.size.width * this.scale;
    const line = Math.min(width, Math.max(0, at)), handle = Math.min(width - HANDLE_PX / 2, Math.max(HANDLE_PX / 2, line));
    $("divider").style.left = `${line}px`;
    $("divider").style.setProperty("--shift-px", `${handle - line}px`); // so that the handle is whole at the edges
    $("compare").setAttribute("aria-pressed", this.split >= 0.5);
    $("divider").setAttribute("aria-valuenow", Math.round(100 * this.split));
    $("divider").setAttribute("aria-valuetext", `${Math.round(100 * this.split)} % original`);
  }

  draw() {
    const canvas = $("marks"), context = canvas.getContext("2d"), ratio = devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(ratio, 0, 0, ratio, this.left * ratio, this.top * ratio);
    if (this.showMarks || this.tool === "erase") drawMarks(context, this.marks, this.scale, 0.55);
    if (this.stroke && this.tool !== "erase") drawMarks(context, [this.stroke], this.scale, 0.8);
    const point = this.cross ?? this.pointer;
    if (!point || !PAINTS.has(this.tool)) return;
    const [x, y] = [point[0] * this.scale, point[1] * this.scale];
    for (const [color, width] of [["#fff", 3], ["#000", 1]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.beginPath();
      context.arc(x, y, Math.max(2, this.radius * this.scale), 0, 7);
      if (this.cross) {
        for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
          context.moveTo(x + 4 * dx, y + 4 * dy);
          context.lineTo(x + 14 * dx, y + 14 * dy);
        }
      }
      context.stroke();
    }
  }

  /** A point of the window ⇒ pixels of the photo. */
  at(event) {
    const box = this.box.getBoundingClientRect();
    return [(event.clientX - box.left - this.left) / this.scale, (event.clientY - box.top - this.top) / this.scale];
  }

  inside([x, y]) {
    return x >= 0 && y >= 0 && x <= this.size.width && y <= this.size.height;
  }

  clamp([x, y]) {
    const round = (value) => Math.round(value * 10) / 10;
    return [Math.min(this.size.width, Math.max(0, round(x))), Math.min(this.size.height, Math.max(0, round(y)))];
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  _listen() {
    const divider = $("divider");
    divider.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      divider.setPointerCapture(event.pointerId);
    });
    divider.addEventListener("pointermove", (event) => {
      if (divider.hasPointerCapture(event.pointerId)) this.setSplit(this.at(event)[0] / this.size.width);
    });
    divider.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02, PageDown: -0.2, PageUp: 0.2, Home: -1, End: 1 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      event.stopPropagation();
      this.setSplit(this.split + steps[event.key]);
    });
    $("zoom").addEventListener("pointerdown", (event) => event.stopPropagation());
    $("zoom-in").addEventListener("click", () => this.zoom(1.5));
    $("zoom-out").addEventListener("click", () => this.zoom(1 / 1.5));
    $("zoom-fit").addEventListener("click", () => this.fit());
    $("compare").addEventListener("click", () => this.compare());
  }
}

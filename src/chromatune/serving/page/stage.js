// The picture: zoom and pan, before and after, and painting on it. It knows nothing of the server.

import { drawMarks } from "./layers.js";

const MOST_ZOOM = 16; // screen pixels for one of the photo
const PAINTS = new Set(["brush", "gray", "version", "erase"]);
const VEIL_PX = 8; // from one line of the veil to the next, on the screen
const REST_MS = 220; // the pointer rests: colors are suggested for the point under it

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
    this.pointers = new Map();
    this._listen();
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

  divide() {
    $("before").style.clipPath = `inset(0 ${100 - 100 * this.split}% 0 0)`;
    const at = this.left + this.split * this.size.width * this.scale;
    $("divider").style.left = `${Math.min(this.box.clientWidth, Math.max(0, at))}px`;
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

  _tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  _listen() {
    const box = this.box;
    box.addEventListener("wheel", (event) => {
      event.preventDefault();
      const rect = box.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - rect.left, event.clientY - rect.top);
    }, { passive: false });
    box.addEventListener("pointerdown", (event) => this._down(event));
    box.addEventListener("pointermove", (event) => this._move(event));
    for (const type of ["pointerup", "pointercancel"]) box.addEventListener(type, (event) => this._up(event));
    box.addEventListener("pointerleave", () => {
      this.pointer = null;
      clearTimeout(this.resting);
      this.draw();
    });
    box.addEventListener("keydown", (event) => this._key(event));
    box.addEventListener("dblclick", () => this.tool === "move" && this.fit());
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
  }

  _down(event) {
    if (event.target.closest("button, #divider")) return;
    this.box.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.pointers.size === 2) { // two fingers move and zoom, whatever the tool
      this.stroke = null;
      return this.draw();
    }
    this.cross = null;
    const point = this.at(event);
    if (event.button !== 0 || this.tool === "move" || !this.inside(point)) return;
    if (this.tool === "pick") return this._tell("pick", this.clamp(point));
    this._begin(point);
  }

  _begin(point) {
    const paint = this.tool === "version" ? { source: this.source } : { color: this.tool === "gray" ? "#808080" : this.color };
    this.stroke = { points: [this.clamp(point)], radius_px: Math.max(0.5, Math.round(this.radius * 10) / 10), ...paint };
    if (this.tool === "erase") this._tell("erase", { point, radius: this.radius });
    this.draw();
  }

  _move(event) {
    const before = this.pointers.get(event.pointerId), point = this.at(event);
    this.pointer = event.pointerType === "touch" ? null : point;
    if (before) {
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (this.pointers.size === 2) this._pinch(event.pointerId, before);
      else if (this.stroke) this._continue(event);
      else if (this.tool === "move" || event.buttons & 4) this.pan(event.clientX - before[0], event.clientY - before[1]);
    } else {
      clearTimeout(this.resting);
      if (this.tool === "brush" && this.inside(point)) {
        this.resting = setTimeout(() => this._tell("rest", this.clamp(point)), REST_MS);
      }
    }
    this.draw();
  }

  _continue(event) {
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      const point = this.at(each), [x, y] = this.stroke.points.at(-1);
      if (Math.hypot(point[0] - x, point[1] - y) < Math.max(0.5, this.radius / 4)) continue;
      this.stroke.points.push(this.clamp(point));
      if (this.tool === "erase") this._tell("erase", { point, radius: this.radius });
    }
  }

  _pinch(id, before) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, at]) => at);
    const now = this.pointers.get(id), rect = this.box.getBoundingClientRect();
    const distance = (a, b) => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
    this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    this.zoom(distance(now, other) / distance(before, other), (now[0] + other[0]) / 2 - rect.left, (now[1] + other[1]) / 2 - rect.top);
  }

  _up(event) {
    this.pointers.delete(event.pointerId);
    if (this.stroke) this._end();
  }

  _end() {
    const stroke = this.stroke;
    this.stroke = null;
    this._tell(this.tool === "erase" ? "erased" : "stroke", stroke);
    this.draw();
  }

  _key(event) {
    if (event.target !== this.box || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step && this.tool === "move") this.pan(-60 * step[0], -60 * step[1]);
    else if (step) this._moveCross(step, event.shiftKey ? 0.002 : 0.02);
    else if ((event.key === "Enter" || event.key === " ") && this.cross) this._useCross();
    else if (event.key === "+" || event.key === "=") this.zoom(1.25);
    else if (event.key === "-") this.zoom(0.8);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }

  _moveCross([x, y], share) {
    const { width, height } = this.size, step = share * Math.min(width, height);
    const [from, to] = this.cross ?? [width / 2, height / 2];
    this.cross = this.clamp([from + x * step, to + y * step]);
    if (this.tool === "brush") this._tell("rest", this.cross);
    this.draw();
  }

  _useCross() {
    if (this.tool === "pick") return this._tell("pick", this.cross);
    this._begin(this.cross);
    this._end();
  }
}

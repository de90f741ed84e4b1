// Color by hand: tools, suggested colors, undo, versions and a reference photo to take colors from, layers.

import { layerOf, markOf } from "./layers.js";
import { save } from "./save.js";
import { drawVersions, inOrder } from "./versions.js";

const KEYS = { h: "move", b: "brush", g: "gray", v: "version", i: "pick", e: "erase" };
const REFERENCE_PX = 600;
const ONE_VERSION = "There is one version so far; make another below to paint with its colors";

const $ = (id) => document.getElementById(id);

export class Hand {
  constructor(page) {
    this.page = page;
    this.colors = [];
    this.leastReach = 0; // until the server has said its limits
    this._listen();
    this._setColor($("color").value);
  }

  /** Limits of options, as the server has them; the reach slider is logarithmic, and its upper end is the page's own. */
  setLimits({ strength, vivid, hint_reach: reach }) {
    [$("strength").min, $("strength").max] = [100 * strength.minimum, 100 * strength.maximum];
    [$("vivid").min, $("vivid").max] = [vivid.minimum, vivid.maximum];
    $("reach").min = Math.log10(reach.minimum);
    this.leastReach = reach.minimum;
  }

  setTool(tool) {
    for (const button of $("tools").children) {
      button.setAttribute("aria-checked", button.dataset.tool === tool);
      button.tabIndex = button.dataset.tool === tool ? 0 : -1;
    }
    this.page.stage.setTool(tool);
    $("sources").hidden = tool !== "version";
    $("suggestions").hidden = tool === "version";
    this._drawSources(this.page.current?.state === "done" ? this.page.current : null);
    if (tool === "brush" && !this.colors.length) $("suggestions").textContent = "Point at the photo for suggestions";
  }

  key(key) {
    if (KEYS[key.toLowerCase()]) this.setTool(KEYS[key.toLowerCase()]);
    else if (/^[1-8]$/.test(key) && this.colors[key - 1]) this._setColor(this.colors[key - 1]);
    else if (key === "[" || key === "]") {
      $("size").value = Number($("size").value) * (key === "]" ? 1.25 : 0.8);
      this._setSize();
    }
  }

  draw(photo) {
    $("undo").disabled = !photo || photo.step === 0;
    $("redo").disabled = !photo || photo.step === photo.history.length - 1;
    $("layer-save").disabled = !photo?.marks.length;
    $("reference-use").checked = Boolean(photo && this.reference && photo.reference === this.reference);
    this._drawSources(photo);
    if (!photo || photo === this.photo) return;
    this.photo = photo;
    $("strength").value = Math.round(100 * photo.strength);
    $("strength-shown").textContent = `${$("strength").value} %`;
    $("reach").value = Math.log10(photo.reach);
    this._showVivid(photo);
    $("own-color-row").hidden = !photo.facts.own_color; // a gray photo, or one of an even tone, has none
    $("own-color").value = photo.ownColor ?? "auto";
    this._suggest([]);
    this._setSize();
  }

  _showVivid(photo) {
    $("vivid").value = photo.vivid ?? 1;
    $("vivid-shown").textContent = photo.vivid === null ? "auto" : photo.vivid.toFixed(1);
  }

  /** Versions to take colors from: all but the one that is shown. */
  _sources(photo) {
    return photo ? inOrder(photo.versions).filter((version) => version !== photo.active) : [];
  }

  /** The version that strokes take their colors from, null where there is no other one. */
  _sourceOf(photo) {
    const all = this._sources(photo);
    return all.includes(photo?.source) ? photo.source : all[0] ?? null;
  }

  _drawSources(photo) {
    if (this.page.stage.tool !== "version") return;
    const version = this._sourceOf(photo);
    if (version) {
      drawVersions($("sources"), photo, this._sources(photo), version, this.page.models, (chosen) => {
        photo.source = chosen;
        this._drawSources(photo);
      });
    } else $("sources").textContent = ONE_VERSION;
    if (version !== this.readied) this._ready(photo, version);
  }

  /** Reads a source's colors before they are painted with, so that a stroke shows them. */
  async _ready(photo, version) {
    this.readied = version;
    this.page.stage.source = null;
    if (!version) return;
    const source = await this.page.try(() => photo.sourceOf(version));
    if (version === this.readied) this.page.stage.source = source ?? null;
  }

  async _paintFromVersion(stroke) {
    const photo = this.page.current, version = this._sourceOf(photo);
    if (!version) return this.page.say(ONE_VERSION);
    const source = await this.page.try(() => photo.sourceOf(version)); // as it looks now
    if (!source) return;
    photo.setMarks([...photo.marks, { ...stroke, source }]);
    if (photo === this.page.current) await this.page.render();
  }

  undo(by) {
    const photo = this.page.current;
    if (photo?.state === "done" && photo.undo(by)) this.page.render();
  }

  _setMarks(marks) {
    this.page.current.setMarks(marks);
    return this.page.render();
  }

  _setSize() {
    const { width, height } = this.page.stage.size;
    this.page.stage.radius = ($("size").value / 100) * Math.min(width, height);
    this.page.stage.draw();
  }

  _setColor(color) {
    $("color").value = color;
    this.page.stage.color = color;
    for (const button of $("suggestions").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", button.dataset.color === color);
    }
  }

  _suggest(colors) {
    this.colors = colors;
    $("suggestions").replaceChildren(...colors.map((color, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.color = color;
      button.style.background = color;
      button.setAttribute("aria-label", `Suggested color ${index + 1}: ${color}`);
      button.setAttribute("aria-pressed", color === $("color").value);
      button.title = `${color} (${index + 1})`;
      button.addEventListener("click", () => {
        this._setColor(color);
        if (this.page.stage.tool !== "brush") this.setTool("brush");
      });
      return button;
    }));
  }

  async _suggestFor(point) {
    const photo = this.page.current;
    if (photo?.state !== "done" || this.suggesting) return;
    this.suggesting = true;
    const colors = await this.page.try(() => photo.suggestions(point));
    this.suggesting = false;
    if (colors && photo === this.page.current) this._suggest(colors);
  }

  /** The color that the photo has at a point. */
  _pick(point) {
    const image = $("after"), canvas = document.createElement("canvas"), { width, height } = this.page.stage.size;
    canvas.width = canvas.height = 3;
    const [x, y] = [(point[0] / width) * image.naturalWidth, (point[1] / height) * image.naturalHeight];
    canvas.getContext("2d").drawImage(image, x - 1.5, y - 1.5, 3, 3, 0, 0, 3, 3);
    this._setColor(meanOf(canvas, 0, 0, 3));
    this._suggestFor(point);
  }

  async openReference(file) {
    if (!file) return;
    await this.page.try(async () => {
      const picture = await createImageBitmap(file).catch(() => {
        throw new Error(`${file.name}: this browser cannot show it; save it as PNG or JPEG`);
      });
      const canvas = $("reference"), scale = Math.min(1, REFERENCE_PX / picture.width);
      canvas.width = Math.round(picture.width * scale);
      canvas.height = Math.round(picture.height * scale);
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
      canvas.hidden = $("reference-use-box").hidden = false;
      this.reference = file;
      $("reference-use").checked = false;
      if (this.page.current?.reference) await this._useReference(); // of the one before
    });
  }

  async _useReference() {
    const photo = this.page.current;
    if (photo?.state !== "done") return;
    await this.page.try(() => photo.takeColorsOf($("reference-use").checked ? this.reference : null));
    if (photo !== this.page.current) return;
    await this.page.render();
    await this.page.words.compare(photo);
  }

  _listen() {
    const { stage } = this.page;
    $("tools").addEventListener("click", (event) => event.target.dataset.tool && this.setTool(event.target.dataset.tool));
    $("tools").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      const buttons = [...$("tools").children], next = (buttons.indexOf(event.target) + step + buttons.length) % buttons.length;
      buttons[next].focus();
      this.setTool(buttons[next].dataset.tool);
      event.preventDefault();
    });
    this.setTool("move");
    stage.addEventListener("stroke", ({ detail }) => {
      if ("source" in detail) this._paintFromVersion(detail);
      else this._setMarks([...this.page.current.marks, detail]);
    });
    stage.addEventListener("rest", ({ detail }) => this._suggestFor(detail));
    stage.addEventListener("pick", ({ detail }) => this._pick(detail));
    stage.addEventListener("erase", ({ detail }) => {
      stage.marks = stage.marks.filter((mark) => !touches(mark, detail));
      stage.draw();
    });
    stage.addEventListener("erased", () => {
      if (stage.marks.length !== this.page.current.marks.length) this._setMarks(stage.marks);
    });
    $("undo").addEventListener("click", () => this.undo(-1));
    $("redo").addEventListener("click", () => this.undo(1));
    $("color").addEventListener("input", () => this._setColor($("color").value));
    $("size").addEventListener("input", () => this._setSize());
    $("reach").addEventListener("input", () => this._slide((photo) => { photo.reach = Math.max(this.leastReach, 10 ** $("reach").value); }));
    $("strength").addEventListener("input", () => {
      $("strength-shown").textContent = `${$("strength").value} %`;
      this._slide((photo) => { photo.strength = $("strength").value / 100; });
    });
    $("vivid").addEventListener("input", () => this._slide((photo) => {
      photo.vivid = Number($("vivid").value);
      this._showVivid(photo);
    }));
    $("own-color").addEventListener("change", () => this._slide((photo) => { photo.ownColor = $("own-color").value; }));
    $("show").addEventListener("change", () => {
      stage.showMarks = $("show").checked;
      stage.draw();
    });
    $("reference-open").addEventListener("click", () => $("reference-file").click());
    $("reference-file").addEventListener("change", () => this.openReference($("reference-file").files[0]));
    $("reference-use").addEventListener("change", () => this._useReference());
    $("reference").addEventListener("click", (event) => {
      const canvas = $("reference"), box = canvas.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * canvas.width, y = ((event.clientY - box.top) / box.height) * canvas.height;
      this._setColor(meanOf(canvas, Math.max(0, x - 2), Math.max(0, y - 2), 5));
      this.setTool("brush");
    });
    this._listenToLayers();
  }

  _listenToLayers() {
    $("layer-save").addEventListener("click", () => this.page.try(async () => {
      const photo = this.page.current, layer = await layerOf(photo.marks, photo.width, photo.height);
      save(layer, `${photo.name.replace(/\.[^.]*$/, "")}.hints.png`);
    }));
    $("layer-open").addEventListener("click", () => $("layer-file").click());
    $("layer-file").addEventListener("change", () => this.page.try(async () => {
      const [file] = $("layer-file").files;
      $("layer-file").value = "";
      if (!file || this.page.current?.state !== "done") return;
      const mark = await markOf(file).catch(() => {
        throw new Error(`${file.name}: this browser cannot read it; save the layer as PNG`);
      });
      await this._setMarks([...this.page.current.marks, mark]);
    }));
  }

  _slide(set) {
    const photo = this.page.current;
    if (photo?.state !== "done") return;
    set(photo);
    this.page.render();
  }
}

function touches(mark, { point: [x, y], radius }) {
  return Boolean(mark.points?.some(([px, py]) => Math.hypot(px - x, py - y) <= radius + mark.radius_px));
}

function meanOf(canvas, left, top, size) {
  const { data } = canvas.getContext("2d").getImageData(Math.round(left), Math.round(top), size, size);
  const sums = [0, 0, 0];
  for (let at = 0; at < data.length; at += 4) for (let channel = 0; channel < 3; channel++) sums[channel] += data[at + channel];
  return `#${sums.map((sum) => Math.round(sum / (data.length / 4)).toString(16).padStart(2, "0")).join("")}`;
}

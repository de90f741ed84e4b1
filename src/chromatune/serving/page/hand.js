// Color by hand: tools, strokes, versions to take colors from, and layers of paint programs.

import { layerOf, markOf } from "./layers.js";
import { save } from "./save.js";
import { drawVersions, inOrder } from "./versions.js";

const KEYS = { h: "move", b: "brush", g: "gray", v: "version", i: "pick", e: "erase" };
const ONE_VERSION = 'Only one version so far: press "Four more" to paint with the colors of another';

const $ = (id) => document.getElementById(id);

export class Hand {
  constructor(page) {
    this.page = page;
    this._listen();
    this._listenToLayers();
    this.setTool("move");
  }

  setTool(tool) {
    for (const button of $("tools").children) {
      button.setAttribute("aria-checked", button.dataset.tool === tool);
      button.tabIndex = button.dataset.tool === tool ? 0 : -1;
    }
    this.page.stage.setTool(tool);
    $("sources").hidden = tool !== "version";
    $("suggestions").hidden = tool === "version";
    this._drawSources(this.page.shownPhoto);
    const isEmpty = !$("suggestions").querySelector("button");
    if (tool !== "brush") return;
    if (isEmpty) $("suggestions").textContent = "Point at the photo for suggestions";
    this.page.colors.prepare(this.page.shownPhoto);
  }

  key(key) {
    if (KEYS[key.toLowerCase()]) this.setTool(KEYS[key.toLowerCase()]);
    else if (/^[1-8]$/.test(key)) this.page.colors.chooseSuggested(key - 1);
    else if (key === "[" || key === "]") {
      $("size").value = Number($("size").value) * (key === "]" ? 1.25 : 0.8);
      this._setSize();
    }
  }

  draw(photo) {
    $("layer-save").disabled = !photo?.marks.length;
    this._drawSources(photo);
    if (!photo || photo === this.photo) return;
    this.photo = photo;
    this._setSize();
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
      drawVersions($("sources"), photo, this._sources(photo), version, this.page, (chosen) => {
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

  _setMarks(marks) {
    this.page.current.setMarks(marks);
    return this.page.render();
  }

  _setSize() {
    const { width, height } = this.page.stage.size;
    this.page.stage.radius = ($("size").value / 100) * Math.min(width, height);
    this.page.stage.draw();
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
    stage.addEventListener("stroke", ({ detail }) => {
      if (!this.page.shownPhoto) return;
      if ("source" in detail) this._paintFromVersion(detail);
      else this._setMarks([...this.page.current.marks, detail]);
    });
    stage.addEventListener("erase", ({ detail }) => {
      stage.marks = stage.marks.filter((mark) => !touches(mark, detail));
      stage.draw();
    });
    stage.addEventListener("erased", () => {
      if (stage.marks.length !== this.page.current.marks.length) this._setMarks(stage.marks);
    });
    $("size").addEventListener("input", () => this._setSize());
    $("show").addEventListener("change", () => {
      stage.showMarks = $("show").checked;
      stage.draw();
    });
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
      if (!file || !this.page.shownPhoto) return;
      const mark = await markOf(file).catch(() => {
        throw new Error(`${file.name}: this browser cannot read it; save the layer as PNG`);
      });
      await this._setMarks([...this.page.current.marks, mark]);
    }));
  }
}

function touches(mark, { point: [x, y], radius }) {
  return Boolean(mark.points?.some(([px, py]) => Math.hypot(px - x, py - y) <= radius + mark.radius_px));
}

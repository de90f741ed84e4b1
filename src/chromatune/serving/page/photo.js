// A photo on the page: its file, its versions, and how it is wanted now, with all states that it was in.

import { call, send } from "./api.js";
import { pictureAt, toSend } from "./layers.js";
import { PhotoSession } from "./session.js";

const THUMB_PIXELS = 30_000;
const SCREEN_PIXELS = 1_000_000; // of the photo as it was, and of versions that strokes take their colors from
const MOST_STATES = 200; // that undo goes back through
const FOR_GOOD = new Set([400, 413, 415]); // the file itself is refused

let numbers = 0;

/** A version as it is asked for: number, facts and small picture are known once the server has made it. */
export const newVersion = (model, options, finished = null) =>
  ({ model, options, finished, number: null, facts: null, thumb: "", thumbBlob: null });

/** Gives an object another picture, with its address. */
export function setPicture(owner, name, blob) {
  if (owner[name]) URL.revokeObjectURL(owner[name]);
  owner[`${name}Blob`] = blob;
  owner[name] = blob ? URL.createObjectURL(blob) : "";
}

export class Photo extends EventTarget {
  constructor(file, { model, options }) {
    super();
    this.key = `${Date.now()} ${++numbers} ${Math.random()}`; // in the browser's store
    this.file = file;
    this.name = file.name || "pasted.png";
    this.state = "waiting";
    this.line = "";
    this.reference = null; // a file whose colors are used where it shows the same things
    this.versions = [newVersion(model, options)];
    this.compared = false; // whether versions of the other models were asked for
    this.source = null; // version that strokes take their colors from
    this.history = [this._start()];
    this.step = 0;
    this.before = this.thumb = this.after = "";
    this.changes = 0;
    this.session = new PhotoSession(this);
  }

  _start() {
    return { marks: [], version: this.versions[0], strength: 1, vivid: null, ownColor: null, reach: Photo.reach, by: "" };
  }

  /** How the photo is wanted: strokes, version, amounts. */
  get now() {
    return this.history[this.step];
  }

  get marks() {
    return this.now.marks;
  }

  get active() {
    return this.now.version;
  }

  get facts() {
    return this.versions[0].facts;
  }

  get width() {
    return this.facts.width_px;
  }

  get height() {
    return this.facts.height_px;
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** Another state, which undo takes back; those of one movement of a slider, named by `by`, are one. */
  set(values, by = "") {
    const until = by && this.now.by === by ? this.step : this.step + 1;
    this.history = [...this.history.slice(0, until), { ...this.now, ...values, by }].slice(-MOST_STATES);
    this.step = this.history.length - 1;
    this.touched = true;
    this.changed();
  }

  /** The slider has been let go: its next movement is another state. */
  settle() {
    this.now.by = "";
  }

  setMarks(marks) {
    this.set({ marks });
  }

  /** The first version as the model gives it; undo brings the rest back. */
  startOver() {
    this.set(this._start());
  }

  get canStartOver() {
    const { marks, by, ...amounts } = this._start();
    return this.marks.length > 0 || Object.keys(amounts).some((name) => this.now[name] !== amounts[name]);
  }

  /** Ends its session, once it is not shown any more. */
  close() {
    this.session.end();
    for (const owner of [this, ...this.versions]) setPicture(owner, "thumb", null);
    setPicture(this, "before", null);
    setPicture(this, "after", null);
  }

  undo(by) {
    const step = this.step + by;
    if (step < 0 || step >= this.history.length) return false;
    this.settle();
    this.step = step;
    this.touched = true;
    this.changed();
    return true;
  }

  /** Opens a session for the photo, which gives its first colors. */
  async open() {
    this.state = "working";
    this.refused = false;
    this.changed();
    try {
      await this.session.ready(this.active);
      const [thumb] = await Promise.all([this._preview({}, THUMB_PIXELS), this.readBefore()]);
      setPicture(this, "thumb", thumb);
      this.state = "done";
    } catch (error) {
      this.state = "failed";
      this.line = error.message;
      this.refused = FOR_GOOD.has(error.status);
    }
    this.changed();
  }

  /** Reads the photo as it was, where it is not there yet. */
  async readBefore() {
    if (this.before) return;
    const answer = await this.session.ask(this.active, (path) => call(`${path}/original?max_pixels=${SCREEN_PIXELS}`));
    setPicture(this, "before", await answer.blob());
  }

  /** Uses the colors of a reference photo, or none; all versions are made anew. Where that fails, all is as before. */
  async takeColorsOf(reference) {
    const before = this.reference;
    const use = (file) => {
      this.reference = file;
      this.session.end();
    };
    use(reference);
    try {
      await this.session.ready(this.active);
    } catch (error) {
      use(before);
      throw error;
    } finally {
      this.changed();
    }
    for (const version of this.versions) setPicture(version, "thumb", null);
    await this.drawVersions();
  }

  /** Reads what strokes from a version show, where it was only stored. */
  async _wake() {
    const sources = new Set(this.marks.map((mark) => mark.source).filter((source) => source && !source.canvas));
    for (const source of sources) source.canvas = await canvasOf(source.blob);
  }

  /** How the photo is wanted, as the server's EditRequest but for its version. */
  async edit(more = {}) {
    await this._wake();
    const { strength, vivid, reach, ownColor, marks } = this.now;
    return {
      strength, vivid, hint_reach: reach, own_color: ownColor,
      hints: { marks: await toSend(marks, this.width, this.height) }, ...more,
    };
  }

  async _preview(more, maxPixels, { version = this.active, signal } = {}) {
    const edit = { ...await this.edit(more), max_pixels: Math.round(maxPixels) };
    const answer = await this.session.ask(version, (path, number) =>
      send(`${path}/preview`, { ...edit, version: number }, signal));
    return answer.blob();
  }

  /** A picture for the screen, or null where a later change has replaced it. */
  async render(maxPixels) {
    const change = ++this.changes;
    this.rendering?.abort();
    this.rendering = new AbortController();
    try {
      const blob = await this._preview({}, maxPixels, { signal: this.rendering.signal });
      if (change !== this.changes) return null;
      setPicture(this, "after", blob);
      return this.after;
    } catch (error) {
      if (error.name === "AbortError") return null;
      throw error;
    }
  }

  /** Shows a picture of the present state among the photos. */
  async setThumb(image) {
    const scale = Math.min(1, Math.sqrt(THUMB_PIXELS / (image.naturalWidth * image.naturalHeight)));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
    canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    setPicture(this, "thumb", await new Promise((done) => canvas.toBlob(done, "image/webp", 0.85)));
    this.changed();
  }

  /** Another pass of the model, or the colors of a finished picture; it is shown from now on. */
  async add(model, options, { show = true, finished = null } = {}) {
    const version = newVersion(model, options, finished);
    await this.session.ready(version);
    this.versions.push(version);
    if (show) this.set({ version });
    else this.changed();
    return version;
  }

  /** Address of a picture that is opaque where a finished picture gives no color; "" for versions of a model. */
  async veilOf(version) {
    if (version.facts.missing === undefined) return "";
    version.veil ??= await this.session.ask(version, (path, number) => call(`${path}/confidence?version=${number}`))
      .then((answer) => answer.blob()).then((blob) => URL.createObjectURL(blob));
    return version.veil;
  }

  /** Draws small pictures of versions that have none. */
  async drawVersions() {
    for (const version of [...this.versions]) {
      if (version.thumb) continue;
      setPicture(version, "thumb", await this._preview({ strength: 1, hints: { marks: [] } }, THUMB_PIXELS, { version }));
      this.changed();
    }
  }

  /** The source of strokes from a version: its own colors now, without strokes, wherever it is painted. */
  sourceOf(version) {
    const look = JSON.stringify([this.now.vivid, this.now.ownColor]);
    if (version.look !== look) {
      version.look = look;
      version.picture = this._readSource(version).catch((error) => {
        version.look = null;
        throw error;
      });
    }
    return version.picture;
  }

  async _readSource(version) {
    const blob = await this._preview({ strength: 1, hints: { marks: [] } }, SCREEN_PIXELS, { version });
    return { blob, canvas: await canvasOf(blob), width: this.width, height: this.height };
  }

  async suggestions([x, y]) {
    const answer = await this.session.ask(this.active, (path, version) =>
      call(`${path}/suggestions?${new URLSearchParams({ x, y, version })}`));
    return (await answer.json()).colors;
  }

  /** The finished file and its name. */
  async result() {
    const edit = await this.edit(), { now } = this;
    const answer = await this.session.ask(this.active, (path, version) => send(`${path}/result`, { ...edit, version }));
    const found = { name: nameOf(answer), blob: await answer.blob() };
    this.saved = now;
    return found;
  }

  /** Whether strokes were painted that are in no file yet. */
  get isUnsaved() {
    return Boolean(this.touched && this.marks.length && this.saved !== this.now);
  }
}

Photo.reach = 10 ** -1.15; // how far strokes act at first: over clothes, and not into the face above them

async function canvasOf(blob) {
  const url = URL.createObjectURL(blob);
  try {
    return await pictureAt(url);
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** A result's name, from the header that carries it. */
export function nameOf(response) {
  const match = /filename\*=UTF-8''([^;]+)/.exec(response.headers.get("content-disposition") ?? "");
  return match ? decodeURIComponent(match[1]) : "photo.color";
}

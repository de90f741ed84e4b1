// The photos on the page: each with its file, its session on the server, versions and strokes.

import { Refusal, call, close, nameOf, open, send } from "./api.js";
import { pictureAt, toSend } from "./layers.js";

const AT_ONCE = 2; // photos that are opened at the same time
const THUMB_PIXELS = 30_000;
const SCREEN_PIXELS = 1_000_000; // of the photo as it was, and of versions that strokes take their colors from

let numbers = 0;

/** What a version was asked for; one with the colors of a finished picture is added to the default model's. */
const askedOf = ({ model, options, finished }) => ({ model: finished ? null : model, options });

export class Photo extends EventTarget {
  constructor(file, options) {
    super();
    this.number = ++numbers;
    this.file = file;
    this.name = file.name || "pasted.png";
    this.options = options; // of the first version, once it is opened anew
    this.state = "waiting";
    this.line = "";
    this.reference = null; // a file whose colors are used where it shows the same things
    this.versions = []; // {number, model, options, facts, thumb}
    this.active = null;
    this.source = null; // version that strokes take their colors from
    this.strength = 1;
    this.vivid = null; // as the model's own
    this.ownColor = null; // what of the photo's own color stays, as the version was asked for
    this.reach = 10 ** -0.8;
    this.history = [[]];
    this.step = 0;
    this.before = this.after = this.thumb = "";
    this.changes = 0;
  }

  get marks() {
    return this.history[this.step];
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

  /** Opens a session for the photo, which gives its first colors. */
  async open() {
    this.state = "working";
    this.changed();
    try {
      await this._open();
      [this.thumb] = await Promise.all([this._preview({}, THUMB_PIXELS), this._readBefore()]);
      this.state = "done";
    } catch (error) {
      this.state = "failed";
      this.line = error.message;
    }
    this.changed();
  }

  async _open() {
    const references = this.reference ? [this.reference] : [];
    const session = await open(this.file, this.options.model, this.options.options, references);
    this.id = session.id;
    this.facts = session.facts;
    const version = { number: session.version, ...this.options, facts: session.facts, thumb: "" };
    this.versions = [version];
    this.active = version;
    this.compared = false; // whether versions of the other models were asked for
  }

  async _readBefore() {
    const answer = await this._withSession(() => call(`/v1/sessions/${this.id}/original?max_pixels=${SCREEN_PIXELS}`));
    this.before = URL.createObjectURL(await answer.blob());
  }

  /** The response to a request; where the session has ended, it is opened again with the version that is shown. */
  async _withSession(request) {
    try {
      return await request();
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 404) throw error;
      const { finished } = this.active;
      this.options = askedOf(this.active);
      await this._open();
      if (finished) await this._addFinished(finished);
      this.changed();
      return request();
    }
  }

  /** Opens the session again, with a reference photo or without; where that fails, all is as before. */
  async takeColorsOf(reference) {
    const before = this.reference, { id } = this;
    this.reference = reference;
    this.options = askedOf(this.active);
    try {
      await this._open();
    } catch (error) {
      this.reference = before;
      throw error;
    } finally {
      this.changed();
    }
    close(id);
    await this.drawVersions();
  }

  /** How the photo is wanted, as the server's EditRequest. */
  async edit(more = {}) {
    return {
      version: this.active.number, strength: this.strength, vivid: this.vivid, hint_reach: this.reach,
      own_color: this.ownColor,
      hints: { marks: await toSend(this.marks, this.width, this.height) }, ...more,
    };
  }

  async _preview(more, maxPixels, signal) {
    const answer = await this._withSession(() =>
      this.edit({ ...more, max_pixels: Math.round(maxPixels) }).then((edit) =>
        send(`/v1/sessions/${this.id}/preview`, edit, signal)));
    return URL.createObjectURL(await answer.blob());
  }

  /** A picture for the screen, or null where a later change has replaced it. */
  async render(maxPixels) {
    const change = ++this.changes;
    this.rendering?.abort();
    this.rendering = new AbortController();
    try {
      const url = await this._preview({}, maxPixels, this.rendering.signal);
      if (change !== this.changes) {
        URL.revokeObjectURL(url);
        return null;
      }
      if (this.after) URL.revokeObjectURL(this.after);
      this.after = url;
      return url;
    } catch (error) {
      if (error.name === "AbortError") return null;
      throw error;
    }
  }

  /** Another pass of the model, which is shown from now on. */
  async add(model, options, show = true) {
    const answer = await this._withSession(() => send(`/v1/sessions/${this.id}/versions`, { model, options }));
    const { version: number, facts } = await answer.json();
    const version = { number, model, options, facts, thumb: "" };
    this.versions.push(version);
    if (show) this.active = version;
    this.changed();
    return version;
  }

  /** A version with the colors of a finished picture of the photo, which is shown from now on. */
  async addFinished(file) {
    await this._withSession(() => this._addFinished(file));
    this.changed();
  }

  async _addFinished(file) {
    const form = new FormData();
    form.append("picture", file, file.name);
    const answer = await call(`/v1/sessions/${this.id}/finished`, { method: "POST", body: form });
    const { version: number, facts } = await answer.json();
    this.active = { number, model: facts.model, options: {}, facts, thumb: "", finished: file };
    this.versions.push(this.active);
  }

  /** Address of a picture that is opaque where a finished picture gives no color; "" for versions of a model. */
  async veilOf(version) {
    if (version.facts.missing === undefined) return "";
    version.veil ??= await call(`/v1/sessions/${this.id}/confidence?version=${version.number}`)
      .then((answer) => answer.blob()).then((blob) => URL.createObjectURL(blob));
    return version.veil;
  }

  /** Draws small pictures of versions that have none; versions that the server has dropped are removed. */
  async drawVersions() {
    for (const version of [...this.versions]) {
      if (version.thumb) continue;
      try {
        version.thumb = await this._preview({ version: version.number, strength: 1, hints: { marks: [] } }, THUMB_PIXELS);
      } catch (error) {
        if (error.status !== 422) throw error;
        this.versions = this.versions.filter((each) => each !== version);
      }
      this.changed();
    }
  }

  /** The source of strokes from a version: its own colors now, without strokes, wherever it is painted. */
  sourceOf(version) {
    const look = JSON.stringify([this.vivid, this.ownColor]);
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
    const own = { version: version.number, strength: 1, hints: { marks: [] } };
    const url = await this._preview(own, SCREEN_PIXELS);
    try {
      return { canvas: await pictureAt(url), width: this.width, height: this.height };
    } finally {
      URL.revokeObjectURL(url);
    }
  }

  setMarks(marks) {
    this.history = [...this.history.slice(0, this.step + 1), marks];
    this.step++;
  }

  undo(by) {
    const step = this.step + by;
    if (step < 0 || step >= this.history.length) return false;
    this.step = step;
    return true;
  }

  async suggestions([x, y]) {
    const query = new URLSearchParams({ x, y, version: this.active.number });
    return (await (await this._withSession(() => call(`/v1/sessions/${this.id}/suggestions?${query}`))).json()).colors;
  }

  /** The finished file and its name. */
  async result() {
    const answer = await this._withSession(() => this.edit().then((edit) => send(`/v1/sessions/${this.id}/result`, edit)));
    return { name: nameOf(answer), blob: await answer.blob() };
  }

  remove() {
    if (this.id) close(this.id);
    for (const url of [this.before, this.after, this.thumb, ...this.versions.map((each) => each.thumb)]) {
      if (url) URL.revokeObjectURL(url);
    }
  }
}

/** Opens photos in their order, a few at a time. */
export class Queue {
  constructor() {
    this.waiting = [];
    this.working = 0;
  }

  add(photo) {
    this.waiting.push(photo);
    this._next();
  }

  async _next() {
    if (this.working >= AT_ONCE || !this.waiting.length) return;
    this.working++;
    await this.waiting.shift().open();
    this.working--;
    this._next();
  }
}

// A photo's session on the server: opened when it is needed, and versions made again where the server has them no more.

import { Refusal, call, send, sendForm } from "./api.js";

const MOST_TRIES = 2;
const NO_VERSION = "version="; // how the server's line begins where it has dropped a version

export async function openSession(file, name, model, options, references = []) {
  const form = new FormData();
  form.append("photo", file, name);
  for (const reference of references) form.append("reference", reference, reference.name);
  form.append("options", JSON.stringify(options));
  if (model) form.append("model", model);
  return (await sendForm("v1/sessions", form)).json();
}

export const closeSession = (id) => call(`v1/sessions/${id}`, { method: "DELETE" }).catch(() => {});

export class PhotoSession {
  constructor(photo) {
    this.photo = photo;
    this.id = null;
    this.making = Promise.resolve(); // one version at a time
  }

  /** The response to a request about a version: `request` gets the session's path and the version's number. */
  async ask(version, request) {
    for (let tries = 1; ; tries++) {
      await this.ready(version);
      const { id } = this;
      try {
        return await request(`v1/sessions/${id}`, version.number);
      } catch (error) {
        if (tries > MOST_TRIES || !this._forgets(error, id, version)) throw error;
      }
    }
  }

  /** Makes a version on the server, where it is not there. The same request gives the same pixels. */
  ready(version) {
    if (this.id && version.number !== null) return Promise.resolve();
    const made = this.making.then(() => this._make(version));
    this.making = made.catch(() => {});
    return made;
  }

  /** Ends the session; the next request opens another one. */
  end() {
    if (this.id) closeSession(this.id);
    this._lose();
  }

  _lose() {
    this.id = null;
    for (const version of this.photo.versions) version.number = null;
  }

  /** Whether a request failed because the session has ended or the version was dropped, which is noted. */
  _forgets(error, id, version) {
    if (!(error instanceof Refusal)) return false;
    if (error.status === 404) {
      if (this.id === id) this._lose();
      version.number = null;
      return true;
    }
    if (error.status !== 422 || !error.message.startsWith(NO_VERSION)) return false;
    version.number = null;
    return true;
  }

  async _make(version) {
    for (let tries = 1; ; tries++) {
      if (!this.id) await this._open(version);
      if (version.number !== null) return;
      const { id } = this;
      try {
        return note(version, await this._add(version));
      } catch (error) {
        if (tries > MOST_TRIES || !this._forgets(error, id, version)) throw error;
      }
    }
  }

  async _open(version) {
    const { photo } = this, { reference } = photo;
    const first = version.finished ? photo.versions.find((each) => !each.finished) : version;
    const opened = await openSession(photo.file, photo.name, first.model, first.options, reference ? [reference] : []);
    if (photo.reference !== reference) { // it was changed meanwhile
      closeSession(opened.id);
      return this._open(version);
    }
    this._lose();
    this.id = opened.id;
    note(first, opened);
  }

  async _add({ model, options, finished }) {
    const path = `v1/sessions/${this.id}`;
    if (!finished) return (await send(`${path}/versions`, { model, options })).json();
    const form = new FormData();
    form.append("picture", finished, finished.name);
    return (await sendForm(`${path}/finished`, form)).json();
  }
}

function note(version, { version: number, facts }) {
  version.number = number;
  version.facts = facts;
  if (!version.finished) version.model = facts.model; // another default of the server's does not change it
}

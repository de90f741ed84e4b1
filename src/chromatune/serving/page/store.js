// Photos in the browser's own store (IndexedDB): file, versions as asked for, strokes with all states, small pictures.
// A reload, a session that has ended or a server that was restarted loses none of it.

import { Photo, newVersion, setPicture } from "./photo.js";

const NAME = `chromatune ${location.pathname}`; // of one server, also where several are behind one host
const MOST_PHOTOS = 100;
const MOST_SHARE = 0.8; // of what the browser has for this page
const WRITE_MS = 300; // after a change

const KEPT_NONE = "This browser cannot store photos: download your work before you close the page";
const FULL = "Browser storage is full: before you close the page, download";
const MOST_NAMED = 3;

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

const finished = (transaction) => new Promise((resolve, reject) => {
  transaction.oncomplete = resolve;
  transaction.onabort = transaction.onerror = () => reject(transaction.error);
});

export class Store {
  constructor(page) {
    this.page = page;
    this.waiting = new Set(); // photos that have changed since they were written
    this.known = new Map(); // key ⇒ when it changed last
    this.dropped = new Set(); // photos for which there was no room
    this.writing = Promise.resolve();
    document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && this._write());
  }

  /** The photos stored, in their order. */
  async open() {
    try {
      const opening = indexedDB.open(NAME, 1);
      opening.onupgradeneeded = () => {
        opening.result.createObjectStore("photos", { keyPath: "key" });
        opening.result.createObjectStore("files", { keyPath: ["photo", "number"] });
      };
      this.database = await done(opening);
    } catch {
      this.page.say(KEPT_NONE);
      return [];
    }
    this.persisted = await navigator.storage?.persisted?.() ?? false;
    const reading = this.database.transaction(["photos", "files"]);
    const [records, files] = await Promise.all(["photos", "files"].map((name) => done(reading.objectStore(name).getAll())));
    for (const { key, changed } of records) this.known.set(key, changed ?? 0);
    const inOrder = records.sort((one, other) => one.order - other.order);
    return inOrder.map((record) => this._read(record, files)).filter(Boolean);
  }

  /** A stored photo; one that is not complete is deleted. */
  _read(record, files) {
    try {
      return photoOf(record, files.filter(({ photo }) => photo === record.key).map(({ blob }) => blob));
    } catch {
      this._then(() => this._delete(record.key));
      return null;
    }
  }

  /** Writes a photo shortly. */
  keep(photo) {
    if (!this.database || photo.video || photo.removed) return;
    if (photo.refused) return void this.remove(photo);
    this.waiting.add(photo);
    this._note();
    this.timer ??= setTimeout(() => this._write(), WRITE_MS);
  }

  /** Deletes what is stored of a photo. */
  remove(photo) {
    this.waiting.delete(photo);
    photo.stored = false;
    photo.filesStored = 0;
    this._then(() => this._delete(photo.key));
  }

  /** Whether a photo is stored as it is now. */
  has(photo) {
    return Boolean(photo.stored) && !this.waiting.has(photo);
  }

  _then(action) {
    this.writing = this.writing.then(action).catch(() => {});
    this._note();
    return this.writing;
  }

  _note() {
    this.busy = (this.busy ?? 0) + 1;
    document.body.dataset.stored = "no";
    this.writing.finally(() => {
      this.busy--;
      if (!this.busy && !this.waiting.size) document.body.dataset.stored = "yes";
    });
  }

  _write() {
    clearTimeout(this.timer);
    this.timer = undefined;
    const photos = [...this.waiting];
    this._then(async () => {
      for (const photo of photos) if (this.waiting.delete(photo)) await this._put(photo);
    });
  }

  async _put(photo) {
    try {
      await this._makeRoom(photo);
      await this._putOnce(photo);
    } catch {
      try {
        await this._deleteOldest(photo);
        await this._putOnce(photo);
      } catch {
        this._drop(photo);
      }
    }
  }

  async _putOnce(photo) {
    const record = recordOf(photo), stored = photo.filesStored ?? 0, { length } = photo.files;
    const writing = this.database.transaction(["photos", "files"], "readwrite");
    for (let number = stored; number < length; number++) {
      writing.objectStore("files").put({ photo: photo.key, number, blob: photo.files[number] });
    }
    writing.objectStore("photos").put(record);
    await finished(writing);
    photo.filesStored = length;
    photo.stored = true;
    this.dropped.delete(photo);
    this.known.set(photo.key, record.changed);
    if (photo.marks.length) this._askToPersist();
  }

  /** Asks the browser, once, to keep what is stored. Some ask the user, who may not answer: nothing waits for it. */
  _askToPersist() {
    if (this.persisted || this.isAsking) return;
    this.isAsking = true;
    navigator.storage?.persist?.().then((given) => { this.persisted = given; }, () => {});
  }

  async _makeRoom(photo) {
    if (this.known.has(photo.key)) return;
    while (this.known.size >= MOST_PHOTOS) await this._deleteOldest(photo);
    const { quota = Infinity, usage = 0 } = await navigator.storage?.estimate?.() ?? {};
    if (usage + photo.file.size > MOST_SHARE * quota && this.known.size) await this._deleteOldest(photo);
  }

  async _deleteOldest(but) {
    const keys = [...this.known].filter(([key]) => key !== but.key).sort(([, one], [, other]) => one - other);
    if (!keys.length) throw new Error(FULL);
    const [[key]] = keys;
    await this._delete(key);
    const photo = this.page.photos.find((each) => each.key === key);
    if (photo) this._drop(photo);
  }

  /** Says that a photo is on this page alone, with the others that are. */
  _drop(photo) {
    photo.stored = false;
    this.dropped.add(photo);
    const names = this.page.photos.filter((each) => this.dropped.has(each)).map(({ name }) => name);
    const more = names.length > MOST_NAMED ? ` and ${names.length - MOST_NAMED} more` : "";
    this.page.say(`${FULL} ${names.slice(0, MOST_NAMED).join(", ")}${more}`);
  }

  async _delete(key) {
    if (!key || !this.known.delete(key)) return;
    const writing = this.database.transaction(["photos", "files"], "readwrite");
    writing.objectStore("photos").delete(key);
    writing.objectStore("files").delete(IDBKeyRange.bound([key, 0], [key, Infinity]));
    await finished(writing);
  }
}

/** A file's number among those of a photo: they are written once. */
function fileNumber(photo, file) {
  if (!file) return null;
  if (!photo.files.includes(file)) photo.files.push(file);
  return photo.files.indexOf(file);
}

/** A photo as it is stored, but for its files. */
function recordOf(photo) {
  photo.files ??= [photo.file];
  const marks = new Map(); // those that several states have are stored once
  const markOf = (mark) => {
    if (!mark.source) return mark;
    const { blob, width, height } = mark.source;
    if (!marks.has(mark)) marks.set(mark, { ...mark, source: { file: fileNumber(photo, blob), width, height } });
    return marks.get(mark);
  };
  return {
    key: photo.key, order: photo.order, changed: Date.now(), name: photo.name, state: photo.state, step: photo.step,
    compared: photo.compared, reference: fileNumber(photo, photo.reference), thumb: photo.thumbBlob ?? null,
    versions: photo.versions.map(({ model, options, facts, finished: file, thumbBlob }) =>
      ({ model, options, facts, thumb: thumbBlob, finished: fileNumber(photo, file) })),
    history: photo.history.map(({ version, marks: own, ...rest }) =>
      ({ ...rest, version: photo.versions.indexOf(version), marks: own.map(markOf) })),
  };
}

/** A photo as it was stored; its session is opened once it is needed. */
function photoOf(record, files) {
  const photo = new Photo(files[0], record.versions[0]);
  const sources = new Map();
  const markOf = (mark) => {
    if (!mark.source) return mark;
    const { file, width, height } = mark.source;
    if (!sources.has(file)) sources.set(file, { blob: files[file], canvas: null, width, height });
    return { ...mark, source: sources.get(file) };
  };
  Object.assign(photo, {
    key: record.key, order: record.order, name: record.name, compared: record.compared, files, filesStored: files.length,
    stored: true, reference: files[record.reference] ?? null, state: record.state === "done" ? "done" : "waiting",
    step: record.step,
  });
  photo.versions = record.versions.map(({ model, options, facts, thumb, finished: file }) => {
    const version = Object.assign(newVersion(model, options, files[file] ?? null), { facts });
    if (thumb) setPicture(version, "thumb", thumb);
    return version;
  });
  photo.history = record.history.map(({ version, marks, ...rest }) =>
    ({ ...rest, version: photo.versions[version], marks: marks.map(markOf) }));
  if (record.thumb) setPicture(photo, "thumb", record.thumb);
  return photo;
}

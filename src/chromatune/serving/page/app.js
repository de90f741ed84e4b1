// The page: photos come in, the chosen one is shown, and what is done to it goes to the server and back.

import { Amount } from "./amount.js";
import { call } from "./api.js";
import { Colors } from "./colors.js";
import { takeFiles } from "./files.js";
import { Hand } from "./hand.js";
import { Models } from "./models.js";
import { Photo } from "./photo.js";
import { Queue } from "./queue.js";
import { save } from "./save.js";
import { Stage } from "./stage.js";
import { Store } from "./store.js";
import { Strip } from "./strip.js";
import { Videos, isVideo } from "./videos.js";
import { Words } from "./words.js";
import { zip } from "./zip.js";

const PREVIEW_PIXELS = 1_000_000;
const MOST_DETAIL_PIXELS = 16_000_000;
const DETAIL_MS = 450; // after the last change: a finer picture, where one looks closely
const SAID_MS = 10_000;
const SHOWN = "chromatune-shown"; // which photo is, for a reload
const UNDO_MS = 20_000; // to bring back a photo that was removed
const THIS_COMPUTER = new Set(["localhost", "127.0.0.1", "[::1]"]);

const $ = (id) => document.getElementById(id);

class Page {
  constructor() {
    this.photos = [];
    this.current = null;
    this.queue = new Queue();
    this.models = new Models();
    this.store = new Store(this);
    this.stage = new Stage();
    this.colors = new Colors(this);
    this.words = new Words(this);
    this.amount = new Amount(this);
    this.hand = new Hand(this);
    this.strip = new Strip(this);
    this.videos = new Videos(this);
    takeFiles(this);
    this._listen();
  }

  /** The photo that is shown and can be changed, or null. */
  get shownPhoto() {
    return this.current?.state === "done" ? this.current : null;
  }

  /** Says something for some seconds, also to screen readers, with a button for what may be done about it. */
  say(line, action = null, ms = SAID_MS) {
    $("status").textContent = line;
    $("status-action").hidden = !action;
    $("status-action").textContent = action?.label ?? "";
    this.action = action;
    clearTimeout(this.saying);
    this.saying = setTimeout(() => this._unsay(), ms);
  }

  _unsay() {
    $("status").textContent = "";
    $("status-action").hidden = true;
  }

  /** Runs something that may fail; its line is said. */
  async try(action) {
    this.busy = (this.busy ?? 0) + 1;
    $("busy").hidden = false;
    try {
      return await action();
    } catch (error) {
      if (error.name !== "AbortError") this.say(error.message);
      return undefined;
    } finally {
      this.busy--;
      $("busy").hidden = this.busy > 0 ? false : true;
    }
  }

  add(files) {
    const all = [...files];
    for (const video of all.filter(isVideo)) this.videos.add(video);
    this.addPhotos(all.filter((file) => !isVideo(file)).map((file) => new Photo(file, this.words.asked())));
  }

  addPhotos(added, shown = added[0]) {
    if (!added.length) return;
    document.body.classList.remove("empty");
    for (const photo of added) {
      photo.order ??= 1 + Math.max(0, ...this.photos.map((each) => each.order));
      this.photos.push(photo);
      photo.addEventListener("change", () => this._photoChanged(photo));
      if (photo.state === "waiting") this.queue.add(photo);
      if (!photo.stored) this.store.keep(photo);
    }
    this.strip.draw();
    if (!this.current || this.current.state === "failed") this.select(shown);
  }

  _photoChanged(photo) {
    if (photo.removed) return;
    this.store.keep(photo);
    this.strip.draw();
    this._drawOfAll();
    if (photo !== this.current) return;
    if (photo.state === "done" && this.shown !== photo) this.select(photo);
    else this.drawPanel();
  }

  async select(photo) {
    this.current = photo;
    if (photo) sessionStorage.setItem(SHOWN, photo.key);
    this.shown = null;
    this.strip.draw();
    $("facts").textContent = photo ? photo.name : "";
    $("busy").hidden = photo?.state !== "working" && photo?.state !== "waiting";
    this.stage.show("before", photo?.before ?? "");
    if (photo?.state === "done") {
      this.shown = photo;
      this.stage.open(photo.width, photo.height, `Photo ${photo.name}`);
      this.stage.marks = photo.marks;
      this.stage.show("after", photo.after || photo.thumb);
      await this.render();
      this.try(() => this._complete(photo));
    } else {
      this.stage.show("after", "");
    }
    this.stage.box.classList.toggle("blank", photo?.state !== "done");
    this.drawPanel();
  }

  /** What a photo may lack that was stored, and versions of other models. */
  async _complete(photo) {
    const isNew = !photo.before;
    await photo.readBefore();
    if (isNew && photo === this.current) this.stage.show("before", photo.before);
    await photo.drawVersions();
    if (photo === this.current) this.words.compare(photo);
  }

  /** The current photo anew, after whatever has changed; the seconds it took are noted. */
  async render(maxPixels = PREVIEW_PIXELS) {
    const photo = this.current, start = performance.now();
    clearTimeout(this.detail);
    this.stage.marks = photo.marks;
    this.stage.draw();
    this.drawPanel();
    const url = await this.try(() => photo.render(maxPixels));
    if (!url || photo !== this.current) return;
    await this.stage.show("after", url);
    if (photo.shownState !== photo.now && photo === this.current) {
      photo.shownState = photo.now;
      photo.setThumb($("after"));
    }
    photo.shownPixels = maxPixels;
    this.stage.box.dataset.changeMs = Math.round(performance.now() - start);
    this.stage.box.dataset.changes = Number(this.stage.box.dataset.changes ?? 0) + 1;
    this._wantDetail();
  }

  _wantDetail() {
    clearTimeout(this.detail);
    const photo = this.shownPhoto;
    if (!photo) return;
    const all = photo.width * photo.height, ratio = devicePixelRatio || 1;
    const wanted = Math.min(all, MOST_DETAIL_PIXELS, all * (this.stage.scale * ratio) ** 2);
    if (wanted < 1.5 * (photo.shownPixels ?? PREVIEW_PIXELS)) return;
    this.detail = setTimeout(() => photo === this.current && this.render(wanted), DETAIL_MS);
  }

  undo(by) {
    if (this.shownPhoto?.undo(by)) this.render();
  }

  /** What depends on all photos, and not on the one that is shown alone. */
  _drawOfAll() {
    this.videos.draw();
    $("download-all").hidden = this.photos.filter((each) => each.state === "done" && !each.video).length < 2;
  }

  drawPanel() {
    this._drawOfAll();
    const photo = this.shownPhoto, failed = this.current?.state === "failed";
    for (const group of document.querySelectorAll("aside .edit")) {
      group.inert = !photo;
      group.hidden = failed;
    }
    $("failed").hidden = !failed;
    if (failed) this._drawFailed(this.current);
    $("download").disabled = !photo || Boolean(photo.video && !photo.video.url);
    $("download").textContent = photo?.video ? "Download video" : "Download";
    $("undo").disabled = !photo || photo.step === 0;
    $("redo").disabled = !photo || photo.step === photo.history.length - 1;
    $("start-over").disabled = !photo?.canStartOver;
    this.hand.draw(photo);
    this.colors.draw(photo);
    this.amount.draw(photo);
    this.words.draw(photo);
    if (photo) $("facts").textContent = `${photo.name} · ${photo.width} × ${photo.height}`;
  }

  _drawFailed(photo) {
    $("failed-line").textContent = photo.line;
    $("failed-help").textContent = photo.refused
      ? "Save it as JPEG, PNG or TIFF in another program, and add it again."
      : "The photo is kept here; try again when the server responds.";
    $("failed-again").hidden = photo.refused;
  }

  async _download() {
    const { video } = this.current;
    if (video) return video.save();
    const found = await this.try(() => this.current.result());
    if (found) save(found.blob, found.name);
  }

  async _downloadAll() {
    const done = this.photos.filter((photo) => photo.state === "done" && !photo.video), files = [];
    for (const [index, photo] of done.entries()) {
      this.say(`${index + 1} of ${done.length}: ${photo.name}`);
      const found = await this.try(() => photo.result());
      if (found) files.push(found);
    }
    if (files.length) save(await zip(files), "chromatune.zip");
  }

  /** Removes a photo; for some seconds it can be brought back. */
  remove(photo) {
    const at = this.photos.indexOf(photo);
    if (at < 0) return;
    photo.removed = true;
    this.photos.splice(at, 1);
    this.queue.remove(photo);
    this.store.remove(photo);
    if (!this.photos.length && !this.videos.all.some((video) => video.isOpening)) document.body.classList.add("empty");
    if (photo === this.current) this.select(this.photos[at] ?? this.photos.at(-1) ?? null);
    this.strip.draw();
    const end = setTimeout(() => {
      photo.close();
      this.videos.photoRemoved(photo);
    }, UNDO_MS);
    const undo = () => {
      clearTimeout(end);
      this._bringBack(photo, at);
    };
    this.say(`${photo.name} removed`, { label: "Undo", run: undo }, UNDO_MS);
  }

  _bringBack(photo, at) {
    photo.removed = false;
    this.photos.splice(at, 0, photo);
    document.body.classList.remove("empty");
    if (photo.state === "waiting") this.queue.add(photo);
    this.store.keep(photo);
    this.select(photo);
  }

  /** Whether leaving the page would lose something, or strokes are in no file and the browser may drop what it stores. */
  get isUnsaved() {
    const lost = (photo) => photo.state !== "failed" && !this.store.has(photo) && !photo.video;
    return this.videos.all.length > 0 || this.photos.some(lost) ||
      (!this.store.persisted && this.photos.some((photo) => photo.isUnsaved));
  }

  _listen() {
    $("download").addEventListener("click", () => this._download());
    $("download-all").addEventListener("click", () => this._downloadAll());
    $("undo").addEventListener("click", () => this.undo(-1));
    $("redo").addEventListener("click", () => this.undo(1));
    $("start-over").addEventListener("click", () => {
      this.shownPhoto.startOver();
      this.render();
    });
    $("failed-again").addEventListener("click", () => this.queue.add(this.current));
    $("failed-remove").addEventListener("click", () => this.remove(this.current));
    $("status-action").addEventListener("click", () => {
      this._unsay();
      this.action.run();
    });
    this.stage.addEventListener("view", () => this._wantDetail());
    document.addEventListener("keydown", (event) => this._key(event));
    addEventListener("beforeunload", (event) => this.isUnsaved && event.preventDefault());
  }

  _key(event) {
    const typing = event.target.closest("input:not([type=range]):not([type=checkbox]), select, textarea, dialog");
    if (typing) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      this.undo(event.shiftKey ? 1 : -1);
    } else if (!event.ctrlKey && !event.metaKey && !event.altKey) {
      if (event.key.toLowerCase() === "c") this.stage.compare();
      else this.hand.key(event.key);
    }
  }
}

if (THIS_COMPUTER.has(location.hostname)) $("privacy").textContent = "Your photos stay on this computer.";
const page = new Page();
page.try(async () => {
  const [offered, stored] = await Promise.all([call("v1/models").then((answer) => answer.json()), page.store.open()]);
  page.models = new Models(offered);
  page.words.setModels(page.models);
  page.amount.setLimits(offered.limits);
  page.addPhotos(stored, stored.find(({ key }) => key === sessionStorage.getItem(SHOWN)));
  document.body.dataset.ready = "yes";
});

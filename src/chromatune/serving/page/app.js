// The page: photos come in, the chosen one is shown, and what is done to it goes to the server and back.

import { call } from "./api.js";
import { Hand } from "./hand.js";
import { Models } from "./models.js";
import { Photo, Queue } from "./photos.js";
import { save } from "./save.js";
import { Stage } from "./stage.js";
import { Strip } from "./strip.js";
import { Videos, isVideo } from "./videos.js";
import { Words } from "./words.js";
import { zip } from "./zip.js";

const PREVIEW_PIXELS = 1_000_000;
const MOST_DETAIL_PIXELS = 16_000_000;
const DETAIL_MS = 450; // after the last change: a finer picture, where one looks closely

const $ = (id) => document.getElementById(id);

class Page {
  constructor() {
    this.photos = [];
    this.current = null;
    this.queue = new Queue();
    this.models = new Models();
    this.stage = new Stage();
    this.words = new Words(this);
    this.hand = new Hand(this);
    this.strip = new Strip(this);
    this.videos = new Videos(this);
    this._listen();
  }

  /** Says something for some seconds, also to screen readers. */
  say(line) {
    $("status").textContent = line;
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { $("status").textContent = ""; }, 6000);
  }

  /** Runs something that may fail; its line is said. */
  async try(action) {
    this.busy = (this.busy ?? 0) + 1;
    $("busy").hidden = false;
    try {
      return await action();
    } catch (error) {
      this.say(error.message);
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

  addPhotos(added) {
    if (!added.length) return;
    document.body.classList.remove("empty");
    for (const photo of added) {
      this.photos.push(photo);
      photo.addEventListener("change", () => this._photoChanged(photo));
      this.queue.add(photo);
    }
    this.strip.draw();
    if (!this.current || this.current.state === "failed") this.select(added[0]);
  }

  _photoChanged(photo) {
    this.strip.draw();
    this._drawOfAll();
    if (photo !== this.current) return;
    if (photo.state === "done" && this.shown !== photo) this.select(photo);
    else this._drawPanel();
  }

  async select(photo) {
    this.current = photo;
    this.shown = null;
    this.strip.draw();
    $("facts").textContent = photo ? photo.name : "";
    $("busy").hidden = photo?.state !== "working" && photo?.state !== "waiting";
    if (photo?.state === "done") {
      this.shown = photo;
      this.stage.open(photo.width, photo.height, `Photo ${photo.name}`);
      this.stage.marks = photo.marks;
      this.stage.show("after", photo.after || photo.thumb);
      this.stage.show("before", photo.before);
      await this.render();
      this.try(() => photo.drawVersions()).then(() => photo === this.current && this.words.compare(photo));
    } else {
      this.stage.show("after", "");
      this.stage.show("before", "");
      if (photo?.state === "failed") this.say(photo.line);
    }
    this._drawPanel();
  }

  /** The current photo anew, after whatever has changed; the seconds it took are noted. */
  async render(maxPixels = PREVIEW_PIXELS) {
    const photo = this.current, start = performance.now();
    clearTimeout(this.detail);
    this.stage.marks = photo.marks;
    this.stage.draw();
    this._drawPanel();
    const url = await this.try(() => photo.render(maxPixels));
    if (!url || photo !== this.current) return;
    await this.stage.show("after", url);
    photo.shownPixels = maxPixels;
    this.stage.box.dataset.changeMs = Math.round(performance.now() - start);
    this.stage.box.dataset.changes = Number(this.stage.box.dataset.changes ?? 0) + 1;
    this._wantDetail();
  }

  _wantDetail() {
    clearTimeout(this.detail);
    const photo = this.current;
    if (photo?.state !== "done") return;
    const all = photo.width * photo.height, ratio = devicePixelRatio || 1;
    const wanted = Math.min(all, MOST_DETAIL_PIXELS, all * (this.stage.scale * ratio) ** 2);
    if (wanted < 1.5 * (photo.shownPixels ?? PREVIEW_PIXELS)) return;
    this.detail = setTimeout(() => photo === this.current && this.render(wanted), DETAIL_MS);
  }

  /** What depends on all photos, and not on the one that is shown alone. */
  _drawOfAll() {
    this.videos.draw();
    $("download-all").hidden = this.photos.filter((each) => each.state === "done").length < 2;
  }

  _drawPanel() {
    this._drawOfAll();
    const photo = this.current?.state === "done" ? this.current : null;
    $("download").disabled = !photo;
    this.hand.draw(photo);
    this.words.draw(photo);
    if (!photo) return;
    const { model, seed, steps } = photo.active.facts;
    $("facts").textContent = `${photo.name} · ${photo.width} × ${photo.height} · ${model}` +
      (this.models.follows(model, "seed") ? `, seed ${seed}, ${steps} ${steps === 1 ? "step" : "steps"}` : "");
  }

  async _download() {
    const found = await this.try(() => this.current.result());
    if (found) save(found.blob, found.name);
  }

  async _downloadAll() {
    const done = this.photos.filter((photo) => photo.state === "done"), files = [];
    for (const [index, photo] of done.entries()) {
      this.say(`${index + 1} of ${done.length}: ${photo.name}`);
      const found = await this.try(() => photo.result());
      if (found) files.push(found);
    }
    if (files.length) save(await zip(files), "chromatune.zip");
  }

  remove(photo) {
    this.photos = this.photos.filter((each) => each !== photo);
    photo.remove();
    if (!this.photos.length) document.body.classList.add("empty");
    this.videos.photoRemoved(photo);
    if (photo === this.current) this.select(this.photos[0] ?? null);
    this.strip.draw();
  }

  _listen() {
    for (const id of ["choose", "add"]) $(id).addEventListener("click", () => $("files").click());
    $("files").addEventListener("change", () => {
      this.add($("files").files);
      $("files").value = "";
    });
    $("download").addEventListener("click", () => this._download());
    $("download-all").addEventListener("click", () => this._downloadAll());
    this.stage.addEventListener("view", () => this._wantDetail());
    for (const type of ["dragenter", "dragover"]) {
      document.addEventListener(type, (event) => {
        event.preventDefault();
        document.body.classList.add("dropping");
      });
    }
    document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      if (event.target.closest?.("#reference-box")) this.hand.openReference(event.dataTransfer.files[0]);
      else this.add(event.dataTransfer.files);
    });
    document.addEventListener("paste", (event) => this.add(event.clipboardData?.files ?? []));
    document.addEventListener("keydown", (event) => this._key(event));
  }

  _key(event) {
    const typing = event.target.closest("input:not([type=range]):not([type=checkbox]), select, textarea, dialog");
    if (typing) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      this.hand.undo(event.shiftKey ? 1 : -1);
    } else if (!event.ctrlKey && !event.metaKey && !event.altKey) {
      if (event.key.toLowerCase() === "c") this.stage.setSplit(this.stage.split < 0.5 ? 1 : 0);
      else this.hand.key(event.key);
    }
  }
}

const page = new Page();
page.try(async () => {
  const offered = await (await call("/v1/models")).json();
  page.models = new Models(offered);
  page.words.setModels(page.models);
  page.hand.setLimits(offered.limits);
  document.body.dataset.ready = "yes";
});

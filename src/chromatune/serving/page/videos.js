// Videos on the page: each shot has a still among the photos, whose strokes are propagated through the shot.

import { Refusal, call, send, sendForm } from "./api.js";
import { Photo } from "./photo.js";
import { save } from "./save.js";

const POLL_MS = 700;
const ENDS = /\.(mp4|m4v|mov|mkv|webm|avi|mpe?g|mts|m2ts|mxf|wmv|flv|ogv|3gp|dv)$/i;

const $ = (id) => document.getElementById(id);
const after = (ms) => new Promise((done) => setTimeout(done, ms));

export const isVideo = (file) => file.type.startsWith("video/") || ENDS.test(file.name);

class Video {
  constructor(file, page) {
    this.file = file;
    this.page = page;
    this.name = file.name;
    this.status = { state: "uploading", stage: "uploading", step: 0, steps: 0, line: "" };
    this.url = "";
    this.ending = new AbortController(); // of its upload
  }

  /** Whether it has stills yet. */
  get isOpening() {
    return ["uploading", "reading"].includes(this.status.state);
  }

  get busy() {
    return this.isOpening || this.status.state === "colorizing";
  }

  async open() {
    const form = new FormData();
    form.append("video", this.file, this.file.name);
    const progress = (share) => {
      Object.assign(this.status, { step: Math.round(100 * share), steps: 100 });
      this.page.videos.draw();
    };
    const { signal } = this.ending;
    this.id = (await (await sendForm("v1/videos", form, { signal, progress })).json()).id;
    await this._follow();
    if (this.status.state !== "ready") return [];
    const asked = this.page.words.asked(), { shots } = this.status;
    return Promise.all(shots.map(async ({ frame }, index) => {
      const still = await (await call(`v1/videos/${this.id}/stills/${frame}`)).blob();
      const photo = new Photo(new File([still], `Shot ${index + 1} of ${shots.length}, ${this.name}.png`), asked);
      photo.video = this;
      photo.frame = frame;
      return photo;
    }));
  }

  /** Colorizes the whole video like its stills: prompt, amount and spread of the shown one, strokes of all. */
  async colorize(shown, photos) {
    const { model, options } = shown.active, hints = {};
    for (const photo of photos) {
      if (photo.video === this && photo.marks.length) hints[photo.frame] = (await photo.edit()).hints;
    }
    const { strength, vivid, hint_reach } = await shown.edit();
    const wanted = { ...options, strength, hint_reach, ...(vivid === null ? {} : { vivid }) };
    await send(`v1/videos/${this.id}/colorize`, { model, options: wanted, hints });
    await this._follow();
    if (this.status.state !== "done") return;
    if (this.url) URL.revokeObjectURL(this.url);
    this.blob = await (await call(`v1/videos/${this.id}/result`)).blob();
    this.url = URL.createObjectURL(this.blob);
  }

  async _follow() {
    do {
      this.status = await (await call(`v1/videos/${this.id}`)).json();
      this.page.videos.draw();
      if (this.busy) await after(POLL_MS);
    } while (this.busy && !this.ending.signal.aborted);
    if (this.status.state === "failed") throw new Refusal(0, this.status.line);
  }

  save() {
    save(this.blob, `${this.name.replace(/\.[^.]*$/, "")}.color.mp4`);
  }

  close() {
    this.ending.abort();
    if (this.id) call(`v1/videos/${this.id}`, { method: "DELETE" }).catch(() => {});
    if (this.url) URL.revokeObjectURL(this.url);
  }
}

export class Videos {
  constructor(page) {
    this.page = page;
    this.all = [];
    $("video-colorize").addEventListener("click", () => this._colorize());
    $("video-cancel").addEventListener("click", () => this._cancel());
  }

  /** The video of the photo that is shown; one that is being read has no photo yet. */
  get current() {
    return this.page.current?.video ?? this.all.find((video) => video.isOpening) ?? null;
  }

  async add(file) {
    const video = new Video(file, this.page);
    this.all.push(video);
    document.body.classList.remove("empty");
    this.draw();
    await this.page.try(async () => {
      try {
        const stills = await video.open();
        if (!video.ending.signal.aborted) this.page.addPhotos(stills);
      } catch (error) {
        const wasRemoved = video.ending.signal.aborted;
        this._remove(video);
        if (!wasRemoved) throw error;
      }
    });
    this.draw();
  }

  /** Removes the video whose last still was removed. */
  photoRemoved(photo) {
    if (photo.video && !this.page.photos.some((each) => each.video === photo.video)) this._remove(photo.video);
    this.draw();
  }

  _remove(video) {
    video.close();
    this.all = this.all.filter((each) => each !== video);
    if (!this.page.photos.length && !this.all.length) document.body.classList.add("empty");
    this.draw();
  }

  async _colorize() {
    const video = this.current, { current, photos } = this.page;
    const shown = current?.video === video && current.facts ? current : photos.find((each) => each.video === video && each.facts);
    if (!shown) return;
    await this.page.try(() => video.colorize(shown, photos));
    this.page.drawPanel();
  }

  /** Ends what is in progress: a video that is still read goes, one that is colorized stays with its stills. */
  async _cancel() {
    const video = this.current;
    if (!video) return;
    if (!video.isOpening) return void await this.page.try(() => call(`v1/videos/${video.id}/colorize`, { method: "DELETE" }));
    this._remove(video);
    this.page.say(`${video.name}: cancelled`);
  }

  draw() {
    const video = this.current;
    $("video").hidden = !video;
    if (!video) return;
    const { state, stage, step, steps, line } = video.status, { busy, url } = video;
    $("video-title").textContent = `Video: ${video.name}`;
    $("video-colorize").disabled = busy || !this.page.photos.some((photo) => photo.video === video && photo.state === "done");
    $("video-cancel").hidden = !busy;
    $("video-progress").hidden = $("video-stage").hidden = !busy;
    if (steps) $("video-progress").value = step / steps;
    else $("video-progress").removeAttribute("value");
    $("video-stage").textContent = state === "uploading" ? `uploading: ${step} %`
      : steps ? `${stage}: ${step} of ${steps}` : step ? `${stage}: ${step}` : stage;
    $("video-line").textContent = state === "done" || state === "failed" ? line : "";
    const player = $("video-player");
    player.hidden = !url || busy;
    if (player.src !== url && url) player.src = url;
  }
}

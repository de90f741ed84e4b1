// Videos on the page: each shot has a still among the photos, whose strokes are propagated through the shot.

import { Refusal, call, send } from "./api.js";
import { Photo } from "./photos.js";
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
  }

  get busy() {
    return ["uploading", "reading", "colorizing"].includes(this.status.state);
  }

  async open() {
    const form = new FormData();
    form.append("video", this.file, this.file.name);
    this.id = (await (await call("/v1/videos", { method: "POST", body: form })).json()).id;
    await this._follow();
    if (this.status.state !== "ready") return [];
    const asked = this.page.words.asked(), { shots } = this.status;
    return Promise.all(shots.map(async ({ frame }, index) => {
      const still = await (await call(`/v1/videos/${this.id}/stills/${frame}`)).blob();
      const photo = new Photo(new File([still], `Shot ${index + 1} of ${shots.length}, ${this.name}.png`), asked);
      photo.video = this;
      photo.frame = frame;
      return photo;
    }));
  }

  /** Colorizes the whole video like its stills: prompt, amount and reach of the shown one, strokes of all. */
  async colorize(shown, photos) {
    const { model, options } = shown.active, hints = {};
    for (const photo of photos) {
      if (photo.video === this && photo.marks.length) hints[photo.frame] = (await photo.edit()).hints;
    }
    const { strength, vivid, hint_reach } = await shown.edit();
    const wanted = { ...options, strength, hint_reach, ...(vivid === null ? {} : { vivid }) };
    await send(`/v1/videos/${this.id}/colorize`, { model, options: wanted, hints });
    await this._follow();
    if (this.status.state !== "done") return;
    if (this.url) URL.revokeObjectURL(this.url);
    this.blob = await (await call(`/v1/videos/${this.id}/result`)).blob();
    this.url = URL.createObjectURL(this.blob);
  }

  async _follow() {
    do {
      this.status = await (await call(`/v1/videos/${this.id}`)).json();
      this.page.videos.draw();
      if (this.busy) await after(POLL_MS);
    } while (this.busy);
    if (this.status.state === "failed") throw new Refusal(0, this.status.line);
  }

  close() {
    if (this.id) call(`/v1/videos/${this.id}`, { method: "DELETE" }).catch(() => {});
    if (this.url) URL.revokeObjectURL(this.url);
  }
}

export class Videos {
  constructor(page) {
    this.page = page;
    this.all = [];
    $("video-colorize").addEventListener("click", () => this._colorize());
    $("video-save").addEventListener("click", () =>
      save(this.current.blob, `${this.current.name.replace(/\.[^.]*$/, "")}.color.mp4`));
  }

  /** The video of the photo that is shown, or the last one. */
  get current() {
    return this.page.current?.video ?? this.all.at(-1) ?? null;
  }

  async add(file) {
    const video = new Video(file, this.page);
    this.all.push(video);
    document.body.classList.remove("empty");
    this.draw();
    await this.page.try(async () => {
      try {
        this.page.addPhotos(await video.open());
      } catch (error) {
        this._remove(video);
        throw error;
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
    const shown = current?.video === video && current.active ? current : photos.find((each) => each.video === video && each.active);
    if (!shown) return;
    await this.page.try(() => video.colorize(shown, photos));
    this.draw();
  }

  draw() {
    const video = this.current;
    $("video").hidden = !video;
    if (!video) return;
    const { state, stage, step, steps, line } = video.status, { busy, url } = video;
    $("video-title").textContent = `Video: ${video.name}`;
    $("video-colorize").disabled = busy || !this.page.photos.some((photo) => photo.video === video && photo.state === "done");
    $("video-save").disabled = busy || !url;
    $("video-progress").hidden = $("video-stage").hidden = !busy;
    if (steps) $("video-progress").value = step / steps;
    else $("video-progress").removeAttribute("value");
    $("video-stage").textContent = steps ? `${stage}: ${step} of ${steps}` : stage;
    $("video-line").textContent = state === "done" || state === "failed" ? line : "";
    const player = $("video-player");
    player.hidden = !url || busy;
    if (player.src !== url && url) player.src = url;
  }
}

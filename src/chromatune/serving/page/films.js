// Films on the page: each shot has a still among the photos, whose strokes are carried through the shot.

import { Refusal, call, send } from "./api.js";
import { Photo } from "./photos.js";
import { save } from "./save.js";

const POLL_MS = 700;
const ENDS = /\.(mp4|m4v|mov|mkv|webm|avi|mpe?g|mts|m2ts|mxf|wmv|flv|ogv|3gp|dv)$/i;

const $ = (id) => document.getElementById(id);
const after = (ms) => new Promise((done) => setTimeout(done, ms));

export const isFilm = (file) => file.type.startsWith("video/") || ENDS.test(file.name);

class Film {
  constructor(file, page) {
    this.file = file;
    this.page = page;
    this.name = file.name;
    this.status = { state: "sending", stage: "sending", step: 0, steps: 0, line: "" };
    this.url = "";
  }

  get busy() {
    return ["sending", "reading", "colorizing"].includes(this.status.state);
  }

  async open() {
    const form = new FormData();
    form.append("film", this.file, this.file.name);
    this.id = (await (await call("/v1/films", { method: "POST", body: form })).json()).id;
    await this._follow();
    if (this.status.state !== "ready") return [];
    const asked = this.page.words.asked(), { shots } = this.status;
    return Promise.all(shots.map(async ({ frame }, index) => {
      const still = await (await call(`/v1/films/${this.id}/stills/${frame}`)).blob();
      const photo = new Photo(new File([still], `Shot ${index + 1} of ${shots.length}, ${this.name}.png`), asked);
      photo.film = this;
      photo.frame = frame;
      return photo;
    }));
  }

  /** Colors the whole film as its stills are: words, amount and reach of the one that is shown, strokes of all. */
  async color(shown, photos) {
    const { model, options } = shown.active, hints = {};
    for (const photo of photos) {
      if (photo.film === this && photo.marks.length) hints[photo.frame] = { marks: photo.marks };
    }
    const { strength, vivid, hint_reach } = shown.wish();
    const wanted = { ...options, strength, hint_reach, ...(vivid === null ? {} : { vivid }) };
    await send(`/v1/films/${this.id}/colors`, { model, options: wanted, hints });
    await this._follow();
    if (this.status.state !== "done") return;
    if (this.url) URL.revokeObjectURL(this.url);
    this.blob = await (await call(`/v1/films/${this.id}/result`)).blob();
    this.url = URL.createObjectURL(this.blob);
  }

  async _follow() {
    do {
      this.status = await (await call(`/v1/films/${this.id}`)).json();
      this.page.films.draw();
      if (this.busy) await after(POLL_MS);
    } while (this.busy);
    if (this.status.state === "failed") throw new Refusal(0, this.status.line);
  }

  close() {
    if (this.id) call(`/v1/films/${this.id}`, { method: "DELETE" }).catch(() => {});
    if (this.url) URL.revokeObjectURL(this.url);
  }
}

export class Films {
  constructor(page) {
    this.page = page;
    this.all = [];
    $("film-color").addEventListener("click", () => this._color());
    $("film-save").addEventListener("click", () =>
      save(this.current.blob, `${this.current.name.replace(/\.[^.]*$/, "")}.color.mp4`));
  }

  /** The film of the photo that is shown, or the last one. */
  get current() {
    return this.page.current?.film ?? this.all.at(-1) ?? null;
  }

  async add(file) {
    const film = new Film(file, this.page);
    this.all.push(film);
    document.body.classList.remove("empty");
    this.draw();
    await this.page.try(async () => {
      try {
        this.page.addPhotos(await film.open());
      } catch (error) {
        this._remove(film);
        throw error;
      }
    });
    this.draw();
  }

  /** The photo has gone; a film without stills goes, too. */
  left(photo) {
    if (photo.film && !this.page.photos.some((each) => each.film === photo.film)) this._remove(photo.film);
    this.draw();
  }

  _remove(film) {
    film.close();
    this.all = this.all.filter((each) => each !== film);
    if (!this.page.photos.length && !this.all.length) document.body.classList.add("empty");
    this.draw();
  }

  async _color() {
    const film = this.current, { current, photos } = this.page;
    const shown = current?.film === film && current.active ? current : photos.find((each) => each.film === film && each.active);
    if (!shown) return;
    await this.page.try(() => film.color(shown, photos));
    this.draw();
  }

  draw() {
    const film = this.current;
    $("film").hidden = !film;
    if (!film) return;
    const { state, stage, step, steps, line } = film.status, { busy, url } = film;
    $("film-title").textContent = `Film: ${film.name}`;
    $("film-color").disabled = busy || !this.page.photos.some((photo) => photo.film === film && photo.state === "done");
    $("film-save").disabled = busy || !url;
    $("film-progress").hidden = $("film-stage").hidden = !busy;
    if (steps) $("film-progress").value = step / steps;
    else $("film-progress").removeAttribute("value");
    $("film-stage").textContent = steps ? `${stage}: ${step} of ${steps}` : stage;
    $("film-line").textContent = state === "done" || state === "failed" ? line : "";
    const player = $("film-player");
    player.hidden = !url || busy;
    if (player.src !== url && url) player.src = url;
  }
}

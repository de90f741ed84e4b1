// Tints and instructions, a model, a seed; and the versions made with them.

import { drawVersions, inOrder, keyOf } from "./versions.js";

const CHOICES = {
  Warm: ", warm colors", Cool: ", cool colors", Vivid: ", vivid colors", Muted: ", muted colors",
  Green: ", mostly green", Blue: ", mostly blue", Red: ", mostly red", Orange: ", mostly orange",
};
const MORE = 4; // versions at a time

const $ = (id) => document.getElementById(id);

export class Words {
  constructor(page) {
    this.page = page;
    this.standards = new Set(); // instructions that models have where none is given
    $("choices").replaceChildren(...Object.keys(CHOICES).map((name) => this._choice(name)));
    $("words").addEventListener("keydown", (event) => event.key === "Enter" && this._colorize());
    $("words").addEventListener("input", () => { this.typed = true; });
    $("again").addEventListener("click", () => this._colorize());
    $("model").addEventListener("change", () => this.page.shownPhoto && this._colorize());
    $("invert").addEventListener("change", () => this._colorize());
    for (const id of ["seed", "steps", "size-px"]) {
      $(id).addEventListener("keydown", (event) => event.key === "Enter" && this._colorize());
    }
    $("more").addEventListener("click", () => this._more());
    $("veil-show").addEventListener("change", () => this._drawVeil(this.page.current));
    $("finished-open").addEventListener("click", () => $("finished-file").click());
    $("finished-file").addEventListener("change", ({ target }) => {
      this._addFinished(target.files[0]);
      target.value = ""; // the same file may be chosen again
    });
  }

  setModels(models) {
    const { names } = models;
    $("model").replaceChildren(...names.map((name) => new Option(models.label(name), name)));
    $("model").parentElement.hidden = names.length < 2;
    this._drawFollowed();
  }

  /** Model and options as the panel has them. */
  asked() {
    const options = { seed: Math.max(0, Math.floor(Number($("seed").value) || 0)) };
    const model = $("model").value || null, words = $("words").value.trim();
    if (words && !this.standards.has(words)) options.prompt = words;
    if ($("invert").checked) options.invert = true;
    for (const [id, name] of [["steps", "steps"], ["size-px", "size_px"]]) {
      if ($(id).value && $(id).checkValidity()) options[name] = Number($(id).value);
    }
    return { model, options: this.page.models.followed(model, options) };
  }

  draw(photo) {
    if (!photo) return;
    for (const { options, facts } of photo.versions) if (!options.prompt) this.standards.add(facts.prompt);
    const { facts } = photo.active;
    if (photo.active !== this.active) {
      this.active = photo.active;
      $("words").value = facts.prompt;
      $("seed").value = facts.seed;
      $("steps").value = photo.active.options.steps ?? "";
      $("size-px").value = photo.active.options.size_px ?? "";
      if (this.page.models.names.includes(facts.model)) $("model").value = facts.model; // or it is a finished picture
      $("invert").checked = Boolean(photo.active.options.invert);
      this._noteChoices();
      this._drawFollowed();
    }
    this._drawNotes(photo);
    this._drawVersions(photo);
    this._drawVeil(photo);
  }

  /** Hatches what a finished picture does not give, where that is asked for. */
  async _drawVeil(photo) {
    const version = photo?.active, missing = version?.facts.missing ?? 0;
    $("veil-show-box").hidden = !missing;
    const url = missing && $("veil-show").checked ? await this.page.try(() => photo.veilOf(version)) : "";
    if (photo?.active === version) this.page.stage.setVeil(url || "");
  }

  /** Shows the fields that the chosen model follows, and says where it follows none. */
  _drawFollowed() {
    const { models } = this.page, model = $("model").value;
    const words = models.follows(model, "prompt"), seed = models.follows(model, "seed");
    $("choices").hidden = $("words").hidden = $("words-help").hidden = !words;
    $("seed").parentElement.hidden = !seed;
    $("steps").parentElement.hidden = !models.follows(model, "steps");
    $("more").hidden = !seed;
    $("follows").hidden = words;
    $("follows").textContent = `${model} ignores instructions${seed ? "" : ", and gives one result"}.`;
  }

  // What was said of the version that is chosen; its notes hold until the edit that they speak of is made
  _drawNotes({ active, now: { ownColor } }) {
    const { warnings, notes, restored } = active.facts;
    const lines = ownColor === null ? [...warnings] : warnings.filter((each) => !notes.includes(each));
    if (restored.length) lines.push(`repaired before coloring: ${restored.join(", ")}`);
    $("notes").textContent = lines.join(" · ");
    $("notes").hidden = !lines.length;
  }

  _choice(name) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      const words = $("words").value, form = CHOICES[name];
      $("words").value = words.includes(form) ? words.replace(form, "") : words + form;
      this._noteChoices();
      this._colorize();
    });
    return button;
  }

  _noteChoices() {
    for (const button of $("choices").children) {
      button.setAttribute("aria-pressed", $("words").value.includes(CHOICES[button.textContent]));
    }
  }

  async _colorize() {
    const photo = this.page.shownPhoto;
    if (!photo) return;
    this._noteChoices();
    const { model, options } = this.asked(), key = keyOf(model, options);
    const made = photo.versions.find((version) =>
      (version.options.variant ?? 1) === 1 && keyOf(version.facts.model, version.options) === key);
    if (made) photo.set({ version: made });
    else if (!await this.page.try(() => photo.add(model, options)) || photo !== this.page.current) return;
    await this.page.render();
    await this.page.try(() => photo.drawVersions());
  }

  async _more() {
    const photo = this.page.shownPhoto;
    if (!photo) return;
    const { model, options } = this.asked();
    $("more").disabled = true;
    await this.page.try(async () => {
      const asked = keyOf(model, options);
      const made = photo.versions.filter((version) => keyOf(version.facts.model, version.options) === asked);
      const last = Math.max(1, ...made.map((version) => version.options.variant ?? 1));
      for (let each = 1; each <= MORE; each++) {
        await photo.add(model, { ...options, variant: last + each }, { show: false });
        await photo.drawVersions();
      }
    });
    $("more").disabled = false;
  }

  async _addFinished(file) {
    const photo = this.page.shownPhoto;
    if (!photo || !file) return;
    $("finished-open").disabled = true;
    const done = await this.page.try(async () => {
      await photo.add(null, {}, { finished: file });
      return true;
    });
    $("finished-open").disabled = false;
    if (!done || photo !== this.page.current) return;
    await this.page.render();
    await this.page.try(() => photo.drawVersions());
  }

  /** Takes a photo through the models whose results stand side by side, once, as long as it is the one that is shown. */
  async compare(photo) {
    if (photo.compared) return;
    photo.compared = true;
    const { models } = this.page, { variant, ...options } = photo.active.options;
    for (const model of models.compared) {
      if (photo !== this.page.current) {
        photo.compared = false;
        return;
      }
      if (photo.versions.some((version) => version.facts.model === model)) continue;
      await this.page.try(async () => {
        await photo.add(model, models.followed(model, options), { show: false });
        await photo.drawVersions();
      });
    }
  }

  _drawVersions(photo) {
    drawVersions($("versions"), photo, inOrder(photo.versions), photo.active, this.page, (version) => {
      photo.set({ version });
      this.page.render();
    });
  }
}

// In words: suggested instructions, an instruction, a model, a seed; and the versions made with them.

const CHOICES = {
  Warm: ", warm colors", Cool: ", cool colors", Vivid: ", vivid colors", Muted: ", muted colors",
  Green: ", mostly green", Blue: ", mostly blue", Red: ", mostly red", Orange: ", mostly orange",
};
const MORE = 4; // versions at a time

const $ = (id) => document.getElementById(id);

/** What variants of each other have in common. */
const keyOf = (model, options) => JSON.stringify([model, Object.entries({ ...options, variant: 1 }).sort()]);

/** Versions as they were made, but variants of each other side by side, the likeliest first. */
function inOrder(versions) {
  const keys = new Map(versions.map((version) => [version, keyOf(version.facts.model, version.options)]));
  const groups = [...new Set(keys.values())];
  const place = (version) => groups.indexOf(keys.get(version));
  return [...versions].sort((one, other) => place(one) - place(other) || one.facts.departure - other.facts.departure);
}

export class Words {
  constructor(page) {
    this.page = page;
    this.chosen = new Set();
    $("choices").replaceChildren(...Object.keys(CHOICES).map((name) => this._choice(name)));
    $("words").addEventListener("keydown", (event) => event.key === "Enter" && this._colorize());
    $("words").addEventListener("input", () => { this.typed = true; });
    $("again").addEventListener("click", () => this._colorize());
    $("model").addEventListener("change", () => this.page.current?.state === "done" && this._colorize());
    $("invert").addEventListener("change", () => this._colorize());
    $("seed").addEventListener("keydown", (event) => event.key === "Enter" && this._colorize());
    $("more").addEventListener("click", () => this._more());
  }

  setModels(names) {
    $("model").replaceChildren(...names.map((name) => new Option(name, name)));
  }

  /** Model and options as the panel has them. */
  asked() {
    const options = { seed: Math.max(0, Math.floor(Number($("seed").value) || 0)) };
    const words = $("words").value.trim();
    if (words && words !== this.standard) options.prompt = words;
    if ($("invert").checked) options.invert = true;
    return { model: $("model").value || null, options };
  }

  draw(photo) {
    if (!photo) return;
    const { facts } = photo.active;
    if (photo.active !== this.active) {
      this.active = photo.active;
      this.standard ??= facts.prompt;
      $("words").value = facts.prompt;
      $("seed").value = facts.seed;
      $("model").value = facts.model;
      $("invert").checked = Boolean(photo.active.options.invert);
      this._noteChoices();
    }
    this._drawNotes(photo);
    this._drawVersions(photo);
  }

  // What was said of the version that is chosen; its notes hold until the edit that they speak of is made
  _drawNotes({ active, ownColor }) {
    const { warnings, notes, restored } = active.facts;
    const lines = ownColor === null ? [...warnings] : warnings.filter((each) => !notes.includes(each));
    if (restored.length) lines.push(`the model saw a repaired copy: ${restored.join(", ")}`);
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
    const photo = this.page.current;
    if (photo?.state !== "done") return;
    this._noteChoices();
    const { model, options } = this.asked();
    const added = await this.page.try(() => photo.add(model, options));
    if (!added || photo !== this.page.current) return;
    await this.page.render();
    await this.page.try(() => photo.drawVersions());
  }

  async _more() {
    const photo = this.page.current;
    if (photo?.state !== "done") return;
    const { model, options } = this.asked();
    $("more").disabled = true;
    await this.page.try(async () => {
      const asked = keyOf(model, options);
      const made = photo.versions.filter((version) => keyOf(version.facts.model, version.options) === asked);
      const last = Math.max(1, ...made.map((version) => version.options.variant ?? 1));
      for (let each = 1; each <= MORE; each++) {
        await photo.add(model, { ...options, variant: last + each }, false);
        await photo.drawVersions();
      }
    });
    $("more").disabled = false;
  }

  _drawVersions(photo) {
    const buttons = inOrder(photo.versions).map((version) => {
      const button = document.createElement("button"), { seed, variant, prompt, model } = version.facts;
      const short = variant > 1 ? `variant ${variant}` : `seed ${seed}`;
      const said = `${prompt}, seed ${seed}${variant > 1 ? `, ${short}` : ""}, ${model}`;
      button.type = "button";
      button.setAttribute("role", "radio");
      button.setAttribute("aria-checked", version === photo.active);
      button.setAttribute("aria-label", said);
      button.title = said;
      if (version.thumb) {
        const image = new Image();
        image.src = version.thumb;
        image.alt = "";
        button.append(image);
      }
      const label = document.createElement("span");
      label.textContent = short;
      button.append(label);
      button.addEventListener("click", () => {
        photo.active = version;
        this.page.render();
      });
      return button;
    });
    const focused = [...$("versions").children].indexOf(document.activeElement);
    $("versions").replaceChildren(...buttons);
    buttons[focused]?.focus();
  }
}

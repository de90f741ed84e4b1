// The brush's color: suggested for a point, picked from the photo or from a reference photo, or any other.

const REFERENCE_PX = 600;
const LEAST_CHANGE = 0.6; // mean, of 255: less, and a reference has changed nothing
const UNMATCHED = "nothing in it matches this photo, so its colors are not used; pick colors from it by hand";

const $ = (id) => document.getElementById(id);

export class Colors {
  constructor(page) {
    this.page = page;
    this.suggested = [];
    this.prepared = new WeakSet();
    this.reference = null;
    this._listen();
    this._show($("color").value);
  }

  draw(photo) {
    if (photo?.reference && photo.reference !== this.reference) this.openReference(photo.reference, true);
    $("reference-use").checked = Boolean(photo?.reference) && photo.reference === this.reference;
    if (!photo || photo === this.photo) return;
    this.photo = photo;
    this._suggest([]);
  }

  /** Chooses the color that is suggested at a place, from 0. */
  chooseSuggested(index) {
    if (this.suggested[index]) this._choose(this.suggested[index]);
  }

  /** Suggests colors for a point; while some are on their way, only the last one wanted is asked for next. */
  async suggestFor(point) {
    this.wanted = { photo: this.page.shownPhoto, point };
    if (this.isAsking) return;
    this.isAsking = true;
    if (!this.suggested.length) $("suggestions").textContent = "Finding colors for this point…";
    while (this.wanted) {
      const { photo, point: at } = this.wanted;
      this.wanted = null;
      const colors = photo && await this.page.try(() => photo.suggestions(at));
      if (colors && photo === this.page.current && !this.wanted) this._suggest(colors);
    }
    this.isAsking = false;
  }

  /** Has suggestions made ready while the pointer is on its way: a version's first ones take passes of the model. */
  prepare(photo) {
    const version = photo?.active;
    if (!version || this.isAsking || this.prepared.has(version)) return;
    this.prepared.add(version);
    photo.suggestions([photo.width / 2, photo.height / 2]).catch(() => this.prepared.delete(version));
  }

  _show(color) {
    $("color").value = color;
    this.page.stage.color = color;
    for (const button of $("suggestions").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", button.dataset.color === color);
    }
  }

  _choose(color) {
    this._show(color);
    this.page.stage.isColorChosen = true;
  }

  _suggest(colors) {
    this.suggested = colors;
    $("suggestions").replaceChildren(...colors.map((color, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.color = color;
      button.style.background = color;
      button.setAttribute("aria-label", `Suggested color ${index + 1}: ${color}`);
      button.setAttribute("aria-pressed", color === $("color").value);
      button.title = `${color} (${index + 1})`;
      button.addEventListener("click", () => {
        this._choose(color);
        if (this.page.stage.tool !== "brush") this.page.hand.setTool("brush");
      });
      return button;
    }));
  }

  /** Takes the color that the photo has at a point, and goes back to the brush. */
  _pick(point) {
    const image = $("after"), canvas = document.createElement("canvas"), { width, height } = this.page.stage.size;
    canvas.width = canvas.height = 3;
    const [x, y] = [(point[0] / width) * image.naturalWidth, (point[1] / height) * image.naturalHeight];
    canvas.getContext("2d").drawImage(image, x - 1.5, y - 1.5, 3, 3, 0, 0, 3, 3);
    this._choose(meanOf(canvas, 0, 0, 3));
    this.page.hand.setTool("brush");
    this.suggestFor(point);
  }

  /** Shows a reference photo beside the photo; one in use is that of the photo itself. */
  async openReference(file, inUse = false) {
    if (!file) return;
    this.reference = file;
    await this.page.try(async () => {
      const picture = await createImageBitmap(file).catch(() => {
        throw new Error(`${file.name}: this browser cannot show it; save it as PNG or JPEG`);
      });
      const canvas = $("reference"), scale = Math.min(1, REFERENCE_PX / picture.width);
      canvas.width = Math.round(picture.width * scale);
      canvas.height = Math.round(picture.height * scale);
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
      canvas.hidden = $("reference-use-box").hidden = false;
      if (inUse) return;
      $("reference-use").checked = false;
      if (this.page.current?.reference) await this._useReference(); // of the one before
    });
  }

  async _useReference() {
    const photo = this.page.shownPhoto, { reference } = this;
    if (!photo) return;
    const isWanted = $("reference-use").checked, before = photo.active.thumbBlob;
    const done = await this.page.try(async () => {
      await photo.takeColorsOf(isWanted ? reference : null);
      return true;
    });
    if (photo !== this.page.current) return;
    await this.page.render();
    const unmatched = done && isWanted && before && await differenceOf(before, photo.active.thumbBlob) < LEAST_CHANGE;
    if (unmatched) this.page.say(`${reference.name}: ${UNMATCHED}`);
    await this.page.words.compare(photo);
  }

  _listen() {
    const { stage } = this.page;
    stage.addEventListener("rest", ({ detail }) => this.suggestFor(detail));
    stage.addEventListener("pick", ({ detail }) => this._pick(detail));
    stage.addEventListener("choice", ({ detail }) => {
      this.page.say("Choose a color for this point, then paint");
      this.suggestFor(detail);
    });
    $("color").addEventListener("input", () => this._choose($("color").value));
    $("reference-open").addEventListener("click", () => $("reference-file").click());
    $("reference-file").addEventListener("change", () => this.openReference($("reference-file").files[0]));
    $("reference-use").addEventListener("change", () => this._useReference());
    $("reference").addEventListener("click", (event) => {
      const canvas = $("reference"), box = canvas.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * canvas.width, y = ((event.clientY - box.top) / box.height) * canvas.height;
      this._choose(meanOf(canvas, Math.max(0, x - 2), Math.max(0, y - 2), 5));
      this.page.hand.setTool("brush");
    });
  }
}

function meanOf(canvas, left, top, size) {
  const { data } = canvas.getContext("2d").getImageData(Math.round(left), Math.round(top), size, size);
  const sums = [0, 0, 0];
  for (let at = 0; at < data.length; at += 4) for (let channel = 0; channel < 3; channel++) sums[channel] += data[at + channel];
  return `#${sums.map((sum) => Math.round(sum / (data.length / 4)).toString(16).padStart(2, "0")).join("")}`;
}

/** Mean difference of two pictures of the same size, 0..255. */
async function differenceOf(one, other) {
  const [first, second] = await Promise.all([one, other].map(async (blob) => {
    const picture = await createImageBitmap(blob), canvas = new OffscreenCanvas(picture.width, picture.height);
    canvas.getContext("2d").drawImage(picture, 0, 0);
    return canvas.getContext("2d").getImageData(0, 0, picture.width, picture.height).data;
  }));
  let sum = 0;
  for (let at = 0; at < first.length; at++) sum += Math.abs(first[at] - second[at]);
  return sum / first.length * 4 / 3; // of the three colors: nothing differs in opacity
}

// All photos in a strip: which one is shown, how far each is, and why one failed.

const STATES = { waiting: "waiting", working: "colorizing …", done: "", failed: "" };

const $ = (id) => document.getElementById(id);

export class Strip {
  constructor(page) {
    this.page = page;
  }

  draw() {
    const { photos } = this.page, box = $("strip");
    box.hidden = photos.length < 2 && photos.every((photo) => photo.state !== "failed");
    const focused = document.activeElement?.closest("#strip button")?.dataset.number;
    box.replaceChildren(...photos.map((photo) => this._button(photo)));
    box.querySelector(`[data-number="${focused}"]`)?.focus();
  }

  _button(photo) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.number = photo.number;
    button.className = photo.state;
    button.setAttribute("aria-current", photo === this.page.current);
    const picture = photo.thumb ? new Image() : document.createElement("span");
    if (photo.thumb) picture.src = photo.thumb;
    picture.className = "blank";
    picture.alt = "";
    const name = document.createElement("span"), state = document.createElement("span");
    name.className = "name";
    name.textContent = photo.name;
    state.className = "state";
    state.textContent = photo.state === "failed" ? photo.line : STATES[photo.state];
    button.append(picture, name, state);
    button.addEventListener("click", () => this.page.select(photo));
    button.addEventListener("keydown", (event) => event.key === "Delete" && this.page.remove(photo));
    button.title = "Press Delete to remove it";
    return button;
  }
}

// All photos in a strip: which one is shown, how far each is, why one failed, and a button that removes it.

const STATES = { waiting: "waiting", working: "colorizing …", done: "", failed: "" };

const $ = (id) => document.getElementById(id);

export class Strip {
  constructor(page) {
    this.page = page;
    this.tiles = new Map(); // photo ⇒ its tile, which stays while the photo changes
  }

  draw() {
    const { photos } = this.page, box = $("strip");
    box.hidden = !photos.length;
    for (const photo of this.tiles.keys()) if (!photos.includes(photo)) this._drop(photo);
    for (const [index, photo] of photos.entries()) {
      if (!this.tiles.has(photo)) this.tiles.set(photo, this._tile(photo));
      const tile = this.tiles.get(photo);
      if (box.children[index] !== tile) box.insertBefore(tile, box.children[index] ?? null);
      this._update(tile, photo);
    }
  }

  _drop(photo) {
    const tile = this.tiles.get(photo), next = tile.nextSibling ?? tile.previousSibling;
    if (tile.contains(document.activeElement)) next?.querySelector("button").focus();
    tile.remove();
    this.tiles.delete(photo);
  }

  _tile(photo) {
    const tile = document.createElement("div");
    tile.innerHTML = `<button type="button" class="photo"><img alt=""><span class="name"></span><span class="state"></span>
      </button><button type="button" class="remove">×</button>`;
    const [choose, remove] = tile.children;
    choose.querySelector(".name").textContent = photo.name;
    choose.addEventListener("click", () => this.page.select(photo));
    remove.title = "Remove (Delete)";
    remove.setAttribute("aria-label", `Remove ${photo.name}`);
    remove.addEventListener("click", () => this.page.remove(photo));
    tile.addEventListener("keydown", (event) => event.key === "Delete" && this.page.remove(photo));
    return tile;
  }

  _update(tile, photo) {
    const image = tile.querySelector("img"), state = photo.state === "failed" ? photo.line : STATES[photo.state];
    tile.className = `tile ${photo.state}`;
    tile.firstChild.setAttribute("aria-current", photo === this.page.current);
    tile.querySelector(".state").textContent = state;
    if (!photo.thumb) image.removeAttribute("src");
    else if (image.getAttribute("src") !== photo.thumb) image.src = photo.thumb;
  }
}

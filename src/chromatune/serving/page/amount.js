// How much color: amount, vividness, what stays of the photo's own color, and how far strokes act.

const $ = (id) => document.getElementById(id);

export class Amount {
  constructor(page) {
    this.page = page;
    this.leastReach = 0; // until the server has said its limits
    this._slider("strength", () => ({ strength: $("strength").value / 100 }));
    this._slider("vivid", () => ({ vivid: Number($("vivid").value) }));
    this._slider("reach", () => ({ reach: Math.max(this.leastReach, 10 ** $("reach").value) }));
    $("own-color").addEventListener("change", () => this._set({ ownColor: $("own-color").value }));
  }

  /** Limits of options, as the server has them; the spread is logarithmic, and its upper end is the page's own. */
  setLimits({ strength, vivid, hint_reach: reach }) {
    [$("strength").min, $("strength").max] = [100 * strength.minimum, 100 * strength.maximum];
    [$("vivid").min, $("vivid").max] = [vivid.minimum, vivid.maximum];
    $("reach").min = Math.log10(reach.minimum);
    this.leastReach = reach.minimum;
  }

  draw(photo) {
    if (!photo) return;
    const { strength, vivid, reach, ownColor } = photo.now;
    $("strength").value = Math.round(100 * strength);
    $("strength-shown").textContent = `${$("strength").value} %`;
    $("vivid").value = vivid ?? 1;
    $("vivid-shown").textContent = vivid === null ? "default" : vivid.toFixed(1);
    $("reach").value = Math.log10(reach);
    $("own-color-row").hidden = !photo.facts.own_color; // a gray photo, or one of an even tone, has none
    $("own-color").value = ownColor ?? "auto";
  }

  /** A slider whose movements, until it is let go, are one step of the history. */
  _slider(id, values) {
    $(id).addEventListener("input", () => this._set(values(), id));
    $(id).addEventListener("change", () => this.page.shownPhoto?.settle());
  }

  _set(values, by) {
    const photo = this.page.shownPhoto;
    if (!photo) return;
    photo.set(values, by);
    this.page.render();
  }
}

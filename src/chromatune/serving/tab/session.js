// An open photo and the versions of it, as the server's sessions (`chromatune.serving.local`).

import { departure } from "./colorizer.js";
import { Refusal, decodeLayer, readPhoto, screenImage, writePhoto } from "./files.js";
import { HintedChroma } from "./hints.js";
import { resizeArea } from "./image.js";
import { findOwnColor } from "./own_color.js";
import { provenance } from "./provenance.js";
import { recompose, smaller } from "./recomposition.js";
import { candidatesOf, suggest } from "./suggestions.js";

const MOST_VERSIONS = 12;
const EDITABLE = ["strength", "vivid", "own_color", "hint_reach", "hint_strength"];

export class Session {
  /** Reads the photo and takes it through the model once. */
  static async open(colorizer, file, references, options, maxPixels) {
    const session = new Session();
    const photo = await photoOf(file, maxPixels);
    Object.assign(session, { colorizer, photo, references: [], versions: new Map(), last: 0 });
    for (const each of references) session.references.push(await referenceOf(colorizer, each, maxPixels));
    await session.add(options);
    return session;
  }

  /** Runs the model again; number and facts of the new version. */
  async add(asked) {
    const { colorizer } = this,
      options = colorizer.resolve(asked),
      photo = options.invert ? this._positive() : this.photo;
    const output = await colorizer.output(photo, options),
      version = ++this.last;
    this.versions.set(version, { output, facts: this._facts(output) });
    if (this.versions.size > MOST_VERSIONS) this.versions.delete(this.versions.keys().next().value);
    return { version, facts: this.versions.get(version).facts };
  }

  _positive() {
    if (!this.positive) {
      const { plane, maxValue } = this.photo,
        data = plane.data.map((level) => maxValue - level);
      this.positive = {
        ...this.photo,
        plane: { ...plane, data },
        gray: data,
        rgb: null,
        ownColor: null,
        own: null,
        seen: null,
      };
    }
    return this.positive;
  }

  _facts({ photo, options, view, shift, seconds }) {
    const { name, height, width, warnings } = photo,
      read = this.colorizer.instructions.warnings(options.prompt);
    const notes = ownColorNotes(photo, options.own_color);
    return {
      name,
      width_px: width,
      height_px: height,
      model: this.colorizer.info.name,
      prompt: options.prompt,
      seed: Number(options.seed),
      variant: options.variant,
      departure: Number(departure(shift).toFixed(5)),
      steps: options.steps,
      seconds: Number(seconds.toFixed(4)),
      own_color: Number((this.photo.ownColor?.share("keep") ?? 0).toFixed(4)),
      warnings: [...warnings, ...read, ...notes],
      notes,
      restored: view.notes,
    };
  }

  version(number) {
    const wanted = number ?? this.last,
      found = this.versions.get(Number(wanted));
    if (!found)
      throw new Refusal(
        `version=${wanted}: does not exist or has expired; accepted: ${[...this.versions.keys()].join(", ")}`,
        422,
      );
    return found;
  }

  /** The photo as it was, for a screen. */
  async original(maxPixels) {
    const { photo } = this,
      { height, width, rgb, gray } = photo;
    const channel = (k) => smaller({ height, width, data: rgb ? gray.map((_, i) => rgb[3 * i + k]) : gray }, maxPixels);
    const planes = rgb ? [channel(0), channel(1), channel(2)] : Array(3).fill(channel(0)),
      [first] = planes;
    const pixels = new gray.constructor(3 * first.data.length);
    for (let i = 0; i < first.data.length; i++) for (let k = 0; k < 3; k++) pixels[3 * i + k] = planes[k].data[i];
    return this._screen(pixels, first);
  }

  async preview(edit, maxPixels, pause) {
    const { output, options, chroma } = await this._edited(edit),
      gray = this._smaller(output.photo.plane, maxPixels);
    return this._screen(await recompose(gray, chroma, options.strength, pause), gray);
  }

  _smaller(plane, maxPixels) {
    if (this.small?.of !== plane || this.small.maxPixels !== maxPixels)
      this.small = { of: plane, maxPixels, gray: smaller(plane, maxPixels) };
    return this.small.gray;
  }

  /** The finished file: its bytes, suffix and name. */
  async result(edit, pause) {
    const { output, options, chroma, marks } = await this._edited(edit);
    const rgb = await recompose(output.photo.plane, chroma, options.strength, pause);
    const sources = ["model", this.references.length ? "reference" : "", marks.length ? "hints" : ""].filter(Boolean);
    const note = await provenance(this.photo.xmp, this.colorizer.info, options, sources, edit.hints);
    const { bytes, suffix } = await writePhoto(rgb, this.photo, note);
    return { bytes, suffix, name: `${this.photo.name.replace(/\.[^./\\]*$/, "") || "photo"}.color${suffix}` };
  }

  async suggestions(x, y, number) {
    const { width, height, name } = this.photo,
      found = this.version(number);
    if (!(x >= 0 && y >= 0 && x <= width && y <= height))
      throw new Refusal(`${name}: ${x},${y} lies outside of its ${width} × ${height} px`, 400);
    found.candidates ??= candidatesOf(this.colorizer, found.output);
    return suggest(await found.candidates, found.output.photo, x, y);
  }

  async _edited(edit) {
    const version = this.version(edit.version),
      { output } = version;
    const changes = EDITABLE.filter((name) => (edit[name] ?? null) !== null).map((name) => [name, edit[name]]);
    const options = { ...output.options, ...Object.fromEntries(changes) },
      marks = await Promise.all((edit.hints?.marks ?? []).map(markOf));
    for (const { points } of marks) this._checkPoints(points);
    if (!marks.length && !this.references.length)
      return { output, options, marks, chroma: this.colorizer.chroma(output, options) };
    const hinted = await this._hinted(version, options);
    return { output, options, marks, chroma: hinted.withHints(marks, options) };
  }

  _checkPoints(points = []) {
    const { width, height, name } = this.photo,
      out = points.find(([x, y]) => !(x >= 0 && y >= 0 && x <= width && y <= height));
    if (out)
      throw new Refusal(
        `${name}: the hint at ${out} lies outside of its ${width} × ${height} px; give pixels of the photo as it is shown`,
        400,
      );
  }

  /** The version's correction field, worked out once for each of its looks. */
  async _hinted(version, options) {
    const look = JSON.stringify([options.vivid, options.own_color]);
    if (version.look !== look) {
      version.features ??= await this.colorizer.features(version.output.view.gray);
      version.hinted = new HintedChroma(
        version.output.photo,
        this.colorizer.chroma(version.output, options),
        version.features,
        this.references,
      );
      version.look = look;
    }
    return version.hinted;
  }

  _screen(rgb, { height, width }) {
    const deep = rgb instanceof Uint16Array,
      pixels = deep ? Uint8Array.from(rgb, (level) => Math.round(level / 257)) : rgb;
    const alpha =
      this.photo.alpha &&
      resizeArea({ height: this.photo.height, width: this.photo.width, data: this.photo.alpha }, height, width).data;
    return screenImage(
      pixels,
      width,
      height,
      alpha && (deep ? Uint8Array.from(alpha, (level) => Math.round(level / 257)) : alpha),
    );
  }
}

async function photoOf(file, maxPixels) {
  const photo = await readPhoto(new Uint8Array(await file.arrayBuffer()), file.name || "photo", maxPixels);
  const plane = { height: photo.height, width: photo.width, data: photo.gray };
  return { ...photo, plane, ownColor: photo.rgb && findOwnColor(photo) };
}

async function referenceOf(colorizer, file, maxPixels) {
  const photo = await photoOf(file, maxPixels);
  if (!photo.rgb) throw new Refusal(`${photo.name} has no color; a reference is a photo in color`, 400);
  return colorizer.reference(photo);
}

/** A line on what of its own color a photo keeps; usually none. */
function ownColorNotes({ ownColor }, choice) {
  const share = choice === "replace" ? 0 : (ownColor?.share(choice) ?? 0);
  if (!share) return [];
  const done = choice === "blend" ? "mixed in" : "kept",
    what = ownColor.inColor ? "its colors" : "stamps, pencil or tints";
  const percent = share < 0.01 ? "less than 1 %" : `${(100 * share).toFixed(0)} %`;
  return [`${done} the photo's own color in ${percent} of it (${what})`];
}

/** A mark as it is drawn: a stroke with its color as levels, or a layer with its pixels. */
async function markOf(mark) {
  if (!mark.points) return decodeLayer(mark.png);
  const { color } = mark,
    found = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(color);
  if (found) return { ...mark, color: found.slice(1).map((each) => parseInt(each, 16)) };
  if (Array.isArray(color)) return mark;
  throw new Refusal(`color=${color}: accepted is #rrggbb`, 422);
}

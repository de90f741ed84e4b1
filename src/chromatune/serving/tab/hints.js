// Hints drawn on the grid, and the chroma that is put onto the photo with them (`chromatune.hints`).

import { CorrectionField, gridSize, upsampleField } from "./correction_field.js";
import { map, plane, resizeArea, resizeLinear } from "./image.js";
import { clamp, fitGamut, relativeChroma, resizeChroma } from "./luminance.js";
import { shrink } from "./restoration.js";
import { Similarity, matches } from "./similarity.js";

const REFERENCE_WEIGHT = 0.01;
const FINER = 4; // pixels of the canvas for one of the grid, along a side
const DEFAULT_RADIUS = 1 / 50; // of the photo's short side

/** One photo with its model's chroma, ready for hints: what does not depend on them is worked out once. */
export class HintedChroma {
  /**
   * @param {{height: number, width: number, plane: Plane}} photo `plane` is its gray
   * @param {Plane[]} chroma [Cb, Cr], the model's own
   * @param {object} features of the photo encoder, by stride
   * @param {object[]} references see `makeReference`
   */
  constructor(photo, chroma, features, references = []) {
    const size = gridSize(photo.height, photo.width);
    const fine = size.map((side, k) => Math.max(side, k ? chroma[0].width : chroma[0].height));
    this.photo = photo;
    this.field = new CorrectionField(shrink(photo.plane, ...size));
    this.atGrid = resizeChroma(chroma, ...size);
    this.chroma = resizeChroma(chroma, ...fine);
    this.fineLuma = shrink(photo.plane, ...fine);
    this.features = features;
    if (!references.length) return;
    const { relative, certainty } = matches(references, features, this.field.luma);
    const weight = map(certainty, (each) => REFERENCE_WEIGHT * each);
    const found = this.field.solve(this._correctionTo(relative), weight);
    this.atGrid = sum(this.atGrid, found);
    this.chroma = sum(this.chroma, this._upsampled(found));
  }

  /** The corrected chroma, about as large as the model's. */
  withHints(marks, { hint_reach: reach, hint_strength: strength }) {
    if (!marks.length) return this.chroma;
    const { relative, weight } = draw(marks, this.photo, this.field.luma);
    return sum(this.chroma, this._upsampled(this._fieldOf(relative, weight, reach)), strength);
  }

  _fieldOf(relative, weight, reach) {
    const correction = this._correctionTo(relative);
    if (!weight.data.some((each) => each > 0)) return this.field.solve(correction, weight, reach);
    this.similarity ??= new Similarity(this.features, this.field.luma);
    const { means, soft } = this.similarity.carry([...correction, ...relative], weight);
    const colors = this._correctionTo(means.slice(2)); // half the hint's color, half its correction of the model
    const total = map(weight, (own, i) => own + soft.data[i] * (1 - own));
    const mixed = correction.map((each, k) =>
      map(each, (value, i) => {
        const mean = (means[k].data[i] + colors[k].data[i]) / 2,
          own = weight.data[i];
        return (own * value + soft.data[i] * (1 - own) * mean) / Math.max(total.data[i], 1e-12);
      }),
    );
    return this.field.solve(mixed, total, reach);
  }

  _upsampled(field) {
    return upsampleField(field, this.field.luma, this.fineLuma);
  }

  /** The correction from the model's chroma to a relative one, as far as the gamut goes. */
  _correctionTo(relative) {
    const { luma } = this.field,
      found = [plane(luma.height, luma.width), plane(luma.height, luma.width)];
    for (let i = 0; i < luma.data.length; i++) {
      const y = luma.data[i],
        fitted = fitGamut(relative[0].data[i] * y, relative[1].data[i] * y, y);
      for (const k of [0, 1]) found[k].data[i] = fitted[k] - this.atGrid[k].data[i];
    }
    return found;
  }
}

const sum = (chroma, other, share = 1) =>
  chroma.map((each, k) => map(each, (value, i) => value + share * other[k].data[i]));

/**
 * Hints on the grid: relative chroma, and a weight 0..1.
 *
 * @param {object[]} marks strokes {points, radius_px, color} and layers {rgba, width, height}, later ones above
 */
function draw(marks, photo, { height, width }) {
  // Relative chroma times alpha, and alpha
  const canvas = [0, 1, 2].map(() => plane(height * FINER, width * FINER));
  for (const mark of marks) {
    if (mark.points) paint(canvas, mark, photo);
    else lay(canvas, mark);
  }
  const [cb, cr, alpha] = canvas.map((each) => resizeArea(each, height, width));
  const relative = [cb, cr].map((each) => map(each, (value, i) => value / Math.max(alpha.data[i], 1e-6)));
  return { relative, weight: map(alpha, (each) => clamp(each, 0, 1)) };
}

function lay(canvas, { rgba, height, width }) {
  const over = [0, 1, 2].map(() => plane(height, width));
  for (let i = 0; i < height * width; i++) {
    const [red, green, blue, alpha] = rgba.subarray(4 * i, 4 * i + 4),
      color = relativeChroma(red, green, blue);
    for (const k of [0, 1]) over[k].data[i] = color[k] * alpha;
    over[2].data[i] = alpha;
  }
  const [{ height: rows, width: columns }] = canvas,
    shrinks = rows <= height && columns <= width;
  const resized = over.map((each) => (shrinks ? resizeArea : resizeLinear)(each, rows, columns).data);
  for (let i = 0; i < rows * columns; i++) {
    const kept = 1 - resized[2][i];
    for (const k of [0, 1, 2]) canvas[k].data[i] = canvas[k].data[i] * kept + resized[k][i];
  }
}

/** Paints a line of one color, with smooth edges. */
function paint(canvas, mark, photo) {
  const [{ height, width }] = canvas,
    scaleX = width / photo.width,
    scaleY = height / photo.height;
  const wanted = (mark.radius_px || DEFAULT_RADIUS * Math.min(photo.height, photo.width)) * Math.sqrt(scaleX * scaleY);
  const radius = Math.min(Math.max(0.5, wanted), Math.hypot(height, width));
  const color = relativeChroma(...mark.color.map((level) => level / 255));
  const points = mark.points.map(([x, y]) => [x * scaleX - 0.5, y * scaleY - 0.5]),
    alpha = new Map();
  cover(alpha, points[0], points[0], radius, height, width);
  for (let i = 1; i < points.length; i++) cover(alpha, points[i - 1], points[i], radius, height, width);
  for (const [at, share] of alpha) {
    for (const k of [0, 1, 2]) canvas[k].data[at] = canvas[k].data[at] * (1 - share) + share * (color[k] ?? 1);
  }
}

/** Notes for each pixel near a segment how far it is covered, 0..1, where that is more than it is already. */
function cover(alpha, [x0, y0], [x1, y1], radius, height, width) {
  const dx = x1 - x0,
    dy = y1 - y0,
    squared = dx * dx + dy * dy,
    margin = radius + 1;
  const top = Math.max(0, Math.floor(Math.min(y0, y1) - margin)),
    bottom = Math.min(height - 1, Math.ceil(Math.max(y0, y1) + margin));
  const left = Math.max(0, Math.floor(Math.min(x0, x1) - margin)),
    right = Math.min(width - 1, Math.ceil(Math.max(x0, x1) + margin));
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const along = squared ? clamp(((x - x0) * dx + (y - y0) * dy) / squared, 0, 1) : 0;
      const share = clamp(radius + 0.5 - Math.hypot(x - x0 - along * dx, y - y0 - along * dy), 0, 1);
      if (share > (alpha.get(y * width + x) ?? 0)) alpha.set(y * width + x, share);
    }
  }
}

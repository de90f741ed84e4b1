// What looks alike to the photo encoder: cells of one photo, and cells of a photo and of a reference photo in color.
// `chromatune.hints.reference` says what is done and why; the constants are its own.

import { map, plane, resize, resizeArea, resizeLinear, roundHalfEven } from "./image.js";
import { clamp, relativeChroma } from "./luminance.js";
import { gridSize } from "./correction_field.js";

const STRIDES = [
  [8, 1],
  [16, 1],
  [32, 0.5],
]; // of the features, and what each counts
const CELL_PX = 4;
const LEAST_SIMILARITY = 0.05,
  SIMILAR_LUMA_SIGMA = 0.1,
  SOFT_WEIGHT = 2e-4;
const LEAST_COSINE = 0.7,
  MATCH_LUMA_SIGMA = 0.15,
  FIRST_SHARE = 0.04,
  FULL_SHARE = 0.1;
const BLOCK = 64; // cells whose cosines are worked out together

/** Height and width of a grid in cells. */
export const cellsOf = (height, width) => [height, width].map((side) => Math.max(1, roundHalfEven(side / CELL_PX)));

/** Cells of 4 × 4 pixels of the grid, and how alike each is to those with hints. */
export class Similarity {
  /**
   * @param {Object<number, {channels: number, height: number, width: number, data: Float32Array}>} features by stride
   * @param {Plane} luma 0..1, at the grid's size
   */
  constructor(features, luma) {
    this.grid = [luma.height, luma.width];
    this.size = cellsOf(luma.height, luma.width);
    this.vectors = cellFeatures(features, this.size, true);
    this.luma = resizeArea(luma, ...this.size).data;
  }

  /**
   * Hints' values carried to the cells that look like those with hints.
   *
   * @param {Plane[]} values count only where there is weight
   * @param {Plane} weight 0..1
   * @returns {{means: Plane[], soft: Plane}} at the grid's size; the weight in terms of a hint's
   */
  carry(values, weight) {
    const share = resizeArea(weight, ...this.size).data,
      count = share.length,
      { channels, data } = this.vectors;
    const summed = values.map(
      (each) =>
        resizeArea(
          map(each, (value, i) => value * weight.data[i]),
          ...this.size,
        ).data,
    );
    const hinted = [...share.keys()].filter((cell) => share[cell] > 0);
    const means = values.map(() => plane(...this.size)),
      certain = plane(...this.size);
    for (let cell = 0; cell < count; cell++) {
      let total = 0;
      const sums = values.map(() => 0);
      for (const other of hinted) {
        let cosine = 0;
        for (let c = 0; c < channels; c++) cosine += data[cell * channels + c] * data[other * channels + c];
        const alike = clamp((cosine - LEAST_SIMILARITY) / (1 - LEAST_SIMILARITY), 0, 1) ** 2,
          off = this.luma[cell] - this.luma[other];
        const likeness = alike * Math.exp(-(off * off) / (2 * SIMILAR_LUMA_SIGMA ** 2));
        total += likeness * share[other];
        for (let k = 0; k < sums.length; k++) sums[k] += likeness * summed[k][other];
      }
      for (let k = 0; k < sums.length; k++) means[k].data[cell] = sums[k] / Math.max(total, 1e-9);
      certain.data[cell] = Math.min(total, 1);
    }
    const spread = (cells) => resizeLinear(cells, ...this.grid);
    return { means: means.map(spread), soft: map(spread(certain), (each) => SOFT_WEIGHT * each) };
  }
}

/** Features of each cell, all strides in one: cells × channels, of length 1. */
function cellFeatures(features, size, centered = false) {
  const parts = STRIDES.map(([stride, share]) => ({ share, planes: normalized(features[stride], centered) }));
  const channels = parts.reduce((sum, { planes }) => sum + planes.length, 0),
    count = size[0] * size[1];
  const data = new Float32Array(count * channels);
  let channel = 0;
  for (const { share, planes } of parts) {
    const grows = planes[0].height <= size[0];
    for (const each of planes) {
      const cells = (grows ? resizeLinear : resizeArea)(each, ...size).data;
      for (let cell = 0; cell < count; cell++) data[cell * channels + channel] = share * cells[cell];
      channel++;
    }
  }
  for (let cell = 0; cell < count; cell++) {
    const row = data.subarray(cell * channels, (cell + 1) * channels),
      length = Math.max(Math.hypot(...row), 1e-6);
    for (let c = 0; c < channels; c++) row[c] /= length;
  }
  return { channels, data };
}

/** Planes of features, each pixel's of length 1; centered, the picture's mean is subtracted first. */
function normalized({ channels, height, width, data }, centered) {
  const count = height * width,
    planes = Array.from({ length: channels }, () => plane(height, width));
  const squares = new Float64Array(count);
  for (const [c, each] of planes.entries()) {
    const values = data.subarray(c * count, (c + 1) * count),
      mean = centered ? values.reduce((sum, v) => sum + v, 0) / count : 0;
    for (let i = 0; i < count; i++) {
      each.data[i] = values[i] - mean;
      squares[i] += each.data[i] ** 2;
    }
  }
  for (const each of planes) for (let i = 0; i < count; i++) each.data[i] /= Math.max(Math.sqrt(squares[i]), 1e-6);
  return planes;
}

/** A photo in color as cells with features, color and luma, as it is and mirrored; `views` are its features so. */
export function makeReference(photo, views) {
  const size = cellsOf(...gridSize(photo.height, photo.width)),
    count = size[0] * size[1];
  const channel = (k) => {
    const found = plane(photo.height, photo.width, photo.gray.constructor);
    for (let i = 0; i < found.data.length; i++) found.data[i] = photo.rgb[3 * i + k];
    return resize(found, ...size).data;
  };
  const [red, green, blue] = [channel(0), channel(1), channel(2)];
  const gray = resize({ height: photo.height, width: photo.width, data: photo.gray }, ...size).data;
  const features = views.map((view) => cellFeatures(view, size)),
    { channels } = features[0];
  const found = {
    channels,
    vectors: new Float32Array(2 * count * channels),
    relative: [],
    luma: new Float32Array(2 * count),
  };
  for (const mirrored of [0, 1]) {
    found.vectors.set(features[mirrored].data, mirrored * count * channels);
    for (let cell = 0; cell < count; cell++) {
      const x = cell % size[1],
        from = mirrored ? cell - x + size[1] - 1 - x : cell;
      found.relative.push(relativeChroma(...[red, green, blue].map((each) => each[from] / photo.maxValue)));
      found.luma[mirrored * count + cell] = gray[from] / photo.maxValue;
    }
  }
  return found;
}

/**
 * The references' colors where they show the same as the photo, and how certain that is.
 *
 * @returns {{relative: Plane[], certainty: Plane}} at the size of `luma`
 */
export function matches(references, features, luma) {
  const size = cellsOf(luma.height, luma.width),
    vectors = cellFeatures(features, size),
    cells = resize(luma, ...size).data;
  const relative = [plane(...size), plane(...size)],
    most = plane(...size),
    total = new Float64Array(cells.length).fill(1e-9);
  for (const reference of references) {
    for (const [cell, { certainty, color }] of matchOf(reference, vectors, cells).entries()) {
      for (const k of [0, 1]) relative[k].data[cell] += certainty * color[k];
      total[cell] += certainty;
      most.data[cell] = Math.max(most.data[cell], certainty);
    }
  }
  for (const each of relative) for (let i = 0; i < total.length; i++) each.data[i] /= total[i];
  return { relative: relative.map((each) => nearest(each, luma)), certainty: nearest(most, luma) };
}

/** For each cell the color of the reference's cell that it is most like, where that is most like it in turn. */
function matchOf(reference, vectors, luma) {
  const { best, highest, bestOfOther } = closest(vectors, reference),
    count = best.length,
    certainty = new Float64Array(count);
  let mean = 0;
  for (let cell = 0; cell < count; cell++) {
    if (bestOfOther[best[cell]] !== cell) continue;
    const off = reference.luma[best[cell]] - luma[cell],
      sure = clamp((highest[cell] - LEAST_COSINE) / (1 - LEAST_COSINE), 0, 1);
    certainty[cell] = sure * Math.exp(-(off * off) / (2 * MATCH_LUMA_SIGMA ** 2));
    mean += certainty[cell] / count;
  }
  const known = clamp((mean - FIRST_SHARE) / (FULL_SHARE - FIRST_SHARE), 0, 1);
  return Array.from(certainty, (each, cell) => ({ certainty: known * each, color: reference.relative[best[cell]] }));
}

/** Of each cell the other's cell of the largest cosine, that cosine, and of each of the other's the cell. */
function closest({ channels, data }, { vectors }) {
  const count = data.length / channels,
    others = vectors.length / channels;
  const best = new Int32Array(count),
    highest = new Float32Array(count).fill(-2);
  const bestOfOther = new Int32Array(others),
    highestOfOther = new Float32Array(others).fill(-2);
  for (let first = 0; first < others; first += BLOCK) {
    const last = Math.min(others, first + BLOCK);
    for (let cell = 0; cell < count; cell++) {
      const row = cell * channels;
      for (let other = first; other < last; other++) {
        const column = other * channels;
        let a = 0,
          b = 0,
          c = 0,
          d = 0,
          k = 0;
        for (; k + 3 < channels; k += 4) {
          a += data[row + k] * vectors[column + k];
          b += data[row + k + 1] * vectors[column + k + 1];
          c += data[row + k + 2] * vectors[column + k + 2];
          d += data[row + k + 3] * vectors[column + k + 3];
        }
        for (; k < channels; k++) a += data[row + k] * vectors[column + k];
        const cosine = Math.fround(a + b + c + d);
        if (cosine > highest[cell]) [highest[cell], best[cell]] = [cosine, other];
        if (cosine > highestOfOther[other]) [highestOfOther[other], bestOfOther[other]] = [cosine, cell];
      }
    }
  }
  return { best, highest, bestOfOther };
}

function nearest(source, { height, width }) {
  const found = plane(height, width);
  for (let y = 0; y < height; y++) {
    const row = Math.min(source.height - 1, Math.floor((y * source.height) / height)) * source.width;
    for (let x = 0; x < width; x++) {
      found.data[y * width + x] = source.data[row + Math.min(source.width - 1, Math.floor((x * source.width) / width))];
    }
  }
  return found;
}

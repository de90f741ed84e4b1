// The correction field: corrections at the few pixels of hints, spread over the photo along equal luma.
//
// As in `chromatune.color.CorrectionField`, x solves (L + λM + εI) x = λM d on a small grid; see there. The
// matrix is banded, as wide as the grid's shorter side, so that it has a cheap Cholesky factor; how far
// hints reach does not matter for the time, as it would for conjugate gradients.

import { plane } from "./image.js";

export const GRID_SHORT_SIDE_PX = 128;
const MAX_ASPECT = 4;
const LUMA_SIGMA = 0.03,
  LEAST_AFFINITY = 1e-4;
const HINT_WEIGHT = 100,
  LEAK = 2e-4;

/** The graph of one photo, which spreads hints over it. */
export class CorrectionField {
  /** @param {Plane} luma 0..1, at the grid's size */
  constructor(luma) {
    this.luma = luma;
    const { height, width, data } = luma,
      count = height * width;
    // Affinities to the neighbors behind, in reading order: left, above left, above, above right
    this.back = [-1, -width - 1, -width, -width + 1];
    this.affinity = this.back.map(() => new Float64Array(count));
    this.degree = new Float64Array(count);
    // Pixels are counted along the shorter side: the matrix's band is then narrow
    this.place = Int32Array.from(data, (_, i) => (width <= height ? i : (i % width) * height + Math.floor(i / width)));
    for (let i = 0; i < count; i++) {
      const x = i % width,
        inside = [x > 0, x > 0 && i >= width, i >= width, x < width - 1 && i >= width];
      for (let n = 0; n < 4; n++) {
        if (!inside[n]) continue;
        const off = data[i] - data[i + this.back[n]],
          a = Math.exp(-(off * off) / (2 * LUMA_SIGMA ** 2)) + LEAST_AFFINITY;
        this.affinity[n][i] = a;
        this.degree[i] += a;
        this.degree[i + this.back[n]] += a;
      }
    }
  }

  /**
   * The correction at every pixel.
   *
   * @param {Plane[]} correction counts only where there is weight
   * @param {Plane} weight 0..1
   * @param {number} reach how far a hint acts, 1 by default
   */
  solve(correction, weight, reach = 1) {
    if (!weight.data.some((each) => each > 0)) return correction.map(({ height, width }) => plane(height, width));
    const weights = Float64Array.from(weight.data, (each) => HINT_WEIGHT * each);
    return this._solve(
      weights.map((each) => each + LEAK / reach ** 2),
      weights,
      correction,
    );
  }

  /** Values smoothed along equal luma: x of (L + pull D) x = pull D values, D the diagonal of L. */
  smooth(values, pull) {
    const weights = this.degree.map((each) => pull * each);
    return this._solve(weights, weights, values);
  }

  _solve(extra, weights, values) {
    const { height, width } = this.luma,
      band = Math.min(height, width) + 1,
      matrix = this._matrix(extra, band);
    factorize(matrix, band);
    return values.map((each) => {
      const x = new Float64Array(weights.length),
        found = plane(height, width);
      for (let i = 0; i < x.length; i++) x[this.place[i]] = weights[i] * each.data[i];
      substitute(matrix, band, x);
      for (let i = 0; i < x.length; i++) found.data[i] = x[this.place[i]];
      return found;
    });
  }

  /** L + `extra` on its diagonal: for each pixel a row of its `band` entries before the diagonal, and that. */
  _matrix(extra, band) {
    const matrix = new Float64Array(extra.length * (band + 1));
    for (let i = 0; i < extra.length; i++) {
      const own = this.place[i];
      matrix[own * (band + 1) + band] = this.degree[i] + extra[i];
      for (let n = 0; n < 4; n++) {
        if (!this.affinity[n][i]) continue;
        const other = this.place[i + this.back[n]];
        matrix[Math.max(own, other) * (band + 1) + band - Math.abs(own - other)] = -this.affinity[n][i];
      }
    }
    return matrix;
  }
}

/** Cholesky's factor of a banded matrix in its place. */
function factorize(matrix, band) {
  const size = band + 1,
    count = matrix.length / size;
  for (let i = 0; i < count; i++) {
    const first = Math.max(0, i - band),
      row = i * size + band - i;
    for (let j = first; j <= i; j++) {
      const other = j * size + band - j,
        from = Math.max(first, j - band);
      let a = 0,
        b = 0,
        c = 0,
        d = 0,
        k = from; // four sums, which the processor adds up side by side
      for (; k < j - 3; k += 4) {
        a += matrix[row + k] * matrix[other + k];
        b += matrix[row + k + 1] * matrix[other + k + 1];
        c += matrix[row + k + 2] * matrix[other + k + 2];
        d += matrix[row + k + 3] * matrix[other + k + 3];
      }
      for (; k < j; k++) a += matrix[row + k] * matrix[other + k];
      const rest = matrix[row + j] - (a + b + c + d);
      matrix[row + j] = j < i ? rest / matrix[other + j] : Math.sqrt(rest);
    }
  }
}

/** Solves for `x` in its place, forward and back through the factor. */
function substitute(matrix, band, x) {
  const size = band + 1;
  for (let i = 0; i < x.length; i++) {
    const row = i * size + band - i;
    for (let k = Math.max(0, i - band); k < i; k++) x[i] -= matrix[row + k] * x[k];
    x[i] /= matrix[row + i];
  }
  for (let i = x.length - 1; i >= 0; i--) {
    const row = i * size + band - i;
    x[i] /= matrix[row + i];
    for (let k = Math.max(0, i - band); k < i; k++) x[k] -= matrix[row + k] * x[i];
  }
}

/** Height and width of the grid of a photo. */
export function gridSize(height, width) {
  const short = Math.min(GRID_SHORT_SIDE_PX, height, width),
    full = [Math.min(height, width), Math.max(height, width)];
  const long = Math.min(full[1], Math.round(short * Math.min(MAX_ASPECT, full[1] / full[0])));
  return height <= width ? [short, long] : [long, short];
}

/** Planes at the grid, upsampled with edges where luma has them: joint bilateral (Kopf et al. 2007). */
export function upsampleField(field, luma, fineLuma) {
  const { height, width } = fineLuma,
    rows = neighbors(height, luma.height),
    columns = neighbors(width, luma.width);
  const found = field.map(() => plane(height, width)),
    sums = new Float64Array(field.length);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      let total = 1e-12;
      sums.fill(0);
      for (let m = 0; m < 3; m++) {
        for (let n = 0; n < 3; n++) {
          const near = rows.indices[3 * y + m] * luma.width + columns.indices[3 * x + n];
          const off = luma.data[near] - fineLuma.data[at];
          const affinity = Math.exp(-(off * off) / (2 * LUMA_SIGMA ** 2)) + LEAST_AFFINITY;
          const weight = affinity * rows.shares[3 * y + m] * columns.shares[3 * x + n];
          total += weight;
          for (let k = 0; k < sums.length; k++) sums[k] += weight * field[k].data[near];
        }
      }
      for (let k = 0; k < sums.length; k++) found[k].data[at] = sums[k] / total;
    }
  }
  return found;
}

/** The three coarse pixels around each fine one along a side, and their shares: a quadratic B-spline's. */
function neighbors(fine, coarse) {
  const indices = new Int32Array(3 * fine),
    shares = new Float64Array(3 * fine);
  for (let i = 0; i < fine; i++) {
    const center = ((i + 0.5) * coarse) / fine - 0.5,
      nearest = Math.min(coarse - 1, Math.max(0, Math.round(center)));
    const off = Math.min(0.5, Math.max(-0.5, center - nearest));
    shares.set([(0.5 - off) ** 2 / 2, 0.75 - off * off, (0.5 + off) ** 2 / 2], 3 * i);
    for (let k = -1; k <= 1; k++) indices[3 * i + k + 1] = Math.min(coarse - 1, Math.max(0, nearest + k));
  }
  return { indices, shares };
}

// Color that a photo has of its own beside the tone of a print: stamps, pencil, hand-tinted spots.
// `chromatune.color.find_own_color` says what is done and why; the limits are its own.

import { components, gaussianBlur, map, plane, resize, resizeArea, resizeLinear } from "./image.js";
import { chromaOf, clamp, labOf, linearToSrgb } from "./luminance.js";

const SMALL_SIDE_PX = 64,
  LEAST_IN_COLOR = 6;
const LONG_SIDE_PX = 512,
  BLUR_PX = 1;
const FAINT = 6,
  CLEAR = 12,
  GLAZE = 16,
  INK = 28,
  GLAZE_SHARE = 0.5;
const LEAST_REGION = 6e-4,
  LEAST_REGION_PX = 30;
const AGING_HUES = [45, 115],
  AGING_RAMP = 10;
const LARGEST_SHARE = 0.45,
  LEAST_ELSEWHERE = 2.4;
const FITS = 8,
  FIT_POINTS = 4096,
  CENTER = 0.6;

/** The local color of a photo; null for a print of one tone. */
export function findOwnColor({ rgb, height, width, maxValue }) {
  const scale = Math.min(1, LONG_SIDE_PX / Math.max(height, width));
  const size = [height, width].map((side) => Math.max(1, Math.round(side * scale)));
  const small = [0, 1, 2].map((k) =>
    map(resizeArea(channel(rgb, k, height, width), ...size), (level) => level / maxValue),
  );
  const [lightness, a, b] = labPlanes(small.map((each) => gaussianBlur(each, BLUR_PX)));
  const [offA, offB] = fromTint(
    map(lightness, (level) => level / 100),
    a,
    b,
  );
  const distance = map(a, (_, i) => Math.hypot(offA.data[i], offB.data[i])),
    chroma = map(a, (value, i) => Math.hypot(value, b.data[i]));
  // Paper that is less yellow than the print lies away from the tint, too, but toward gray
  const amount = map(a, (value, i) =>
    offA.data[i] * value + offB.data[i] * b.data[i] > 0 ? Math.min(distance.data[i], chroma.data[i]) : 0,
  );
  const local = sureOf(amount);
  if (!local.regions.includes(1)) return null;
  const sure = sureOf(map(amount, (value, i) => value * notAging(offA.data[i], offB.data[i])));
  const outside = distance.data.filter((_, i) => !local.regions[i]);
  const elsewhere = outside.length ? meanOf(outside) : LEAST_ELSEWHERE;
  const inColor = ownChroma(small) > LEAST_IN_COLOR && elsewhere > LEAST_ELSEWHERE;
  const own = chromaOf(joined(small), ...size);
  if (inColor || meanOf(sure.regions) > LARGEST_SHARE) {
    return new OwnColor(
      own,
      map(a, () => 1),
      map(chroma, ramp),
      map(a, () => 0),
      true,
    );
  }
  const tint = chromaOf(
    joined(
      rgbPlanes(
        lightness,
        map(a, (value, i) => value - offA.data[i]),
        map(b, (value, i) => value - offB.data[i]),
      ),
    ),
    ...size,
  );
  const opacity = map(chroma, (value) => clamp((value - GLAZE) / (INK - GLAZE), 0, 1));
  const added = own.map((each, k) =>
    map(
      each,
      (value, i) => value - (1 - opacity.data[i]) * (GLAZE_SHARE * tint[k].data[i] + (1 - GLAZE_SHARE) * value),
    ),
  );
  return new OwnColor(added, opacity, local.sure, sure.sure, false);
}

class OwnColor {
  constructor(chroma, opacity, local, sure, inColor) {
    Object.assign(this, { chroma, opacity, local, sure, inColor });
  }

  /** The weight of the photo's own color, 0..1: for auto, replace, keep, blend. */
  weight(choice) {
    if (choice === "replace") return map(this.local, () => 0);
    if (choice === "blend") return map(this.local, (value) => value / 2);
    return choice === "auto" ? this.sure : this.local;
  }

  /** How much of the photo has its own color, at least in part. */
  share(choice) {
    return meanOf(this.weight(choice).data.map((value) => Number(value >= 0.25)));
  }

  /** A model's chroma with the photo's own where that is kept. */
  putInto(chroma, choice) {
    const weight = this.weight(choice),
      [{ height, width }] = chroma;
    if (!weight.data.some((value) => value > 0)) return chroma;
    const smaller = height <= weight.height && width <= weight.width;
    const [cb, cr, covered] = [...this.chroma, this.opacity].map((each) =>
      (smaller ? resizeArea : resizeLinear)(
        map(each, (value, i) => value * weight.data[i]),
        height,
        width,
      ),
    );
    return chroma.map((each, k) => map(each, (value, i) => value * (1 - covered.data[i]) + [cb, cr][k].data[i]));
  }
}

function channel(rgb, k, height, width) {
  const found = plane(height, width, rgb.constructor);
  for (let i = 0; i < found.data.length; i++) found.data[i] = rgb[3 * i + k];
  return found;
}

function joined(planes) {
  const found = new Float32Array(3 * planes[0].data.length);
  for (const [k, { data }] of planes.entries()) found.set(data, k * data.length);
  return found;
}

const meanOf = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const ramp = (amount) => clamp((amount - FAINT) / (CLEAR - FAINT), 0, 1);

function labPlanes([red, green, blue]) {
  const found = [0, 1, 2].map(() => plane(red.height, red.width));
  for (let i = 0; i < red.data.length; i++) {
    const lab = labOf(red.data[i], green.data[i], blue.data[i]);
    for (let k = 0; k < 3; k++) found[k].data[i] = lab[k];
  }
  return found;
}

function rgbPlanes(lightness, a, b) {
  const found = [0, 1, 2].map(() => plane(a.height, a.width));
  for (let i = 0; i < a.data.length; i++) {
    const fy = (lightness.data[i] + 16) / 116,
      [x, y, z] = [fy + a.data[i] / 500, fy, fy - b.data[i] / 200].map(
        (f, k) => [0.950456, 1, 1.088754][k] * (f > 6 / 29 ? f ** 3 : (f - 16 / 116) / 7.787),
      );
    const linear = [
      3.240479 * x - 1.53715 * y - 0.498535 * z,
      -0.969256 * x + 1.875991 * y + 0.041556 * z,
      0.055648 * x - 0.204043 * y + 1.057311 * z,
    ];
    for (const k of [0, 1, 2]) found[k].data[i] = clamp(linearToSrgb(linear[k]), 0, 1);
  }
  return found;
}

/** Mean CIELAB distance of a photo's colors from a quadratic in lightness, at 64 × 64 points. */
function ownChroma(small) {
  const [lightness, a, b] = labPlanes(small.map((each) => resize(each, SMALL_SIDE_PX, SMALL_SIDE_PX)));
  const terms = Array.from(lightness.data, (level) => [(level / 100) ** 2, level / 100, 1]);
  const factors = leastSquares(
    terms,
    Array.from(a.data, (value, i) => [value, b.data[i]]),
    terms.map(() => 1),
  );
  return meanOf(terms.map((row, i) => Math.hypot(a.data[i] - dot(row, factors[0]), b.data[i] - dot(row, factors[1]))));
}

function dot(row, factors) {
  let sum = 0;
  for (let k = 0; k < factors.length; k++) sum += row[k] * factors[k];
  return sum;
}

/** How a* and b* differ from the print's tint: of the whole picture's and of its center's, the nearer one counts. */
function fromTint(lightness, a, b) {
  const { height, width } = a,
    top = Math.floor((height * (1 - CENTER)) / 2),
    left = Math.floor((width * (1 - CENTER)) / 2);
  const x = (column) => (width > 1 ? (2 * column) / (width - 1) - 1 : -1),
    y = (row) => (height > 1 ? (2 * row) / (height - 1) - 1 : -1);
  const fit = (fromTop, fromLeft) => {
    const rows = height - 2 * fromTop,
      columns = width - 2 * fromLeft,
      step = Math.max(1, Math.floor(Math.sqrt(Math.floor((rows * columns) / FIT_POINTS))));
    const terms = [],
      values = [];
    for (let v = fromTop; v < height - fromTop; v += step) {
      for (let u = fromLeft; u < width - fromLeft; u += step) {
        const i = v * width + u,
          level = lightness.data[i];
        terms.push([1, level, level * level, x(u), y(v)]);
        values.push([a.data[i], b.data[i]]);
      }
    }
    return robustFit(terms, values);
  };
  const whole = fit(0, 0),
    inner = fit(top, left),
    found = [plane(height, width), plane(height, width)];
  const off = (factors, value, level, u, v) =>
    value - ((factors[2] * level + factors[1]) * level + factors[3] * u + factors[4] * v + factors[0]);
  for (let row = 0, i = 0; row < height; row++) {
    for (let column = 0; column < width; column++, i++) {
      const level = lightness.data[i],
        u = x(column),
        v = y(row);
      const wholeA = off(whole[0], a.data[i], level, u, v),
        wholeB = off(whole[1], b.data[i], level, u, v);
      const innerA = off(inner[0], a.data[i], level, u, v),
        innerB = off(inner[1], b.data[i], level, u, v);
      const isInner = innerA ** 2 + innerB ** 2 < wholeA ** 2 + wholeB ** 2;
      found[0].data[i] = isInner ? innerA : wholeA;
      found[1].data[i] = isInner ? innerB : wholeB;
    }
  }
  return found;
}

/** The factors of terms that give pairs of values with the least sum of distances. */
function robustFit(terms, values) {
  let weights = new Float64Array(terms.length).fill(1),
    factors;
  for (let round = 0; round < FITS; round++) {
    factors = leastSquares(terms, values, weights);
    weights = weights.map((_, i) => {
      const a = values[i][0] - dot(terms[i], factors[0]),
        b = values[i][1] - dot(terms[i], factors[1]);
      return 1 / Math.max(Math.sqrt(a * a + b * b), 1);
    });
  }
  return factors;
}

/** Weighted least squares of two values by their normal equations; a term that says nothing new gets factor 0. */
function leastSquares(terms, values, weights) {
  const count = terms[0].length,
    rows = Array.from({ length: count }, () => new Float64Array(count + 2));
  for (let i = 0; i < terms.length; i++) {
    const row = terms[i],
      pair = values[i];
    for (let p = 0; p < count; p++) {
      const share = weights[i] * row[p];
      for (let q = 0; q < count; q++) rows[p][q] += share * row[q];
      rows[p][count] += share * pair[0];
      rows[p][count + 1] += share * pair[1];
    }
  }
  const scale = rows.map((row, p) => row[p]),
    isFree = [];
  for (let p = 0; p < count; p++) {
    isFree[p] = rows[p][p] <= 1e-10 * scale[p] || !scale[p];
    if (isFree[p]) continue;
    for (let q = 0; q < count; q++) {
      if (q === p) continue;
      const factor = rows[q][p] / rows[p][p];
      for (let k = 0; k < count + 2; k++) rows[q][k] -= factor * rows[p][k];
    }
  }
  return [0, 1].map((k) => rows.map((row, p) => (isFree[p] ? 0 : row[count + k] / row[p])));
}

/** 0 where a difference from the tint has the hue of stains, with a ramp to 1 elsewhere. */
function notAging(a, b) {
  const hue = ((Math.atan2(b, a) * 180) / Math.PI + 360) % 360;
  return 1 - clamp(Math.min(hue - AGING_HUES[0], AGING_HUES[1] - hue) / AGING_RAMP, 0, 1);
}

/** How sure local color is, and its regions: connected, with enough that is clear. */
function sureOf(amount) {
  const { height, width, data } = amount,
    regions = new Uint8Array(data.length),
    least = Math.max(LEAST_REGION_PX, LEAST_REGION * data.length);
  const faint = Uint8Array.from(data, (value) => value > FAINT);
  for (const pixels of components(faint, height, width)) {
    if (pixels.filter((at) => data[at] > CLEAR).length >= least) for (const at of pixels) regions[at] = 1;
  }
  return { regions, sure: map(amount, (value, i) => ramp(value) * regions[i]) };
}

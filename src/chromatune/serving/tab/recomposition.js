// Full-size half of colorization: small chroma is upsampled along the gray's edges, luminance stays exact.
// `chromatune.color.recompose` says what is done and why; its constants are these.

import { boxBlur, gaussianBlur, interpolate, linearTaps, map, resize } from "./image.js";
import { BLUE_IN_GREEN, CB_SCALE, CR_SCALE, RED_IN_GREEN, clamp, resizeChroma } from "./luminance.js";

const MID_FACTOR = 4,
  MID_LONG_SIDE_PX = 768;
const WINDOW_PER_BLUR = 2,
  MIN_WINDOW_PX = 1;
const SLOPE_EPS = 2e-3,
  SLOPE_LIMIT = 0.25;
const BLURS_PX = [0.3, 0.42, 0.6, 0.85, 1.2, 1.7, 2.4, 3.4, 4.8];
const GAMUT_MARGIN = 0.01;
const STRIP_ROWS = 64; // between two looks at whether the work is still wanted

/**
 * The photograph in color: its own luminance exactly, and the given chroma.
 *
 * @param {Plane} gray uint8 or uint16 luma, at full size
 * @param {Plane[]} chroma [Cb, Cr] of any size
 * @param {number} strength factor on the chroma, 0..1
 * @param {function(): Promise} pause called between strips; what it throws ends the work
 * @returns {Promise<Uint8Array|Uint16Array>} height × width × 3 sRGB of the gray's type
 */
export async function recompose(gray, chroma, strength = 1, pause = async () => {}) {
  const { height, width } = gray,
    white = gray.data instanceof Uint16Array ? 65535 : 255;
  const model = localLinearModel(chroma, gray, white);
  // To gray levels of B - Y' and R - Y', so that the full-size pass needs no further factors
  for (const [index, each] of model.entries()) {
    const factor = (index < 2 ? CB_SCALE : CR_SCALE) * strength * (index % 2 ? white : 1);
    for (let i = 0; i < each.data.length; i++) each.data[i] *= factor;
  }
  const rgb = new gray.data.constructor(height * width * 3);
  const rows = linearTaps(model[0].height, height),
    columns = linearTaps(model[0].width, width);
  for (let top = 0; top < height; top += STRIP_ROWS) {
    await pause();
    for (let y = top; y < Math.min(height, top + STRIP_ROWS); y++) fillRow(rgb, gray, model, rows, columns, y, white);
  }
  return rgb;
}

/** Writes a row of the result: gray plus chroma, in gamut, rounded so that rounded luma is the gray's. */
function fillRow(rgb, gray, model, rows, columns, y, white) {
  const lines = model.map((each) => between(each, rows, y)),
    { width } = gray;
  const [blueSlope, blueOffset, redSlope, redOffset] = lines,
    { indices, weights } = columns;
  for (let x = 0, at = y * width; x < width; x++, at++) {
    const left = indices[2 * x],
      right = indices[2 * x + 1],
      a = weights[2 * x],
      b = weights[2 * x + 1];
    const luma = gray.data[at];
    const blue = (a * blueSlope[left] + b * blueSlope[right]) * luma + a * blueOffset[left] + b * blueOffset[right];
    const red = (a * redSlope[left] + b * redSlope[right]) * luma + a * redOffset[left] + b * redOffset[right];
    const green = RED_IN_GREEN * red + BLUE_IN_GREEN * blue;
    const above = white + GAMUT_MARGIN - luma,
      below = -GAMUT_MARGIN - luma;
    const highest = Math.max(red, blue, green),
      lowest = Math.min(red, blue, green);
    const factor = Math.min(above / Math.max(highest, above), below / Math.min(lowest, below));
    const wholeBlue = Math.round(blue * factor),
      wholeRed = Math.round(red * factor);
    // Green follows from red and blue as rounded: it has the largest weight, so that luma stays exact
    rgb[3 * at] = luma + wholeRed;
    rgb[3 * at + 1] = luma + Math.round(RED_IN_GREEN * wholeRed + BLUE_IN_GREEN * wholeBlue);
    rgb[3 * at + 2] = luma + wholeBlue;
  }
}

function between({ data, width }, { indices, weights }, y) {
  const above = indices[2 * y] * width,
    below = indices[2 * y + 1] * width,
    line = new Float32Array(width);
  for (let x = 0; x < width; x++) line[x] = weights[2 * y] * data[above + x] + weights[2 * y + 1] * data[below + x];
  return line;
}

/** Chroma as a local linear function of luma, at a moderate size: slope and offset of Cb, and of Cr, for 0..1. */
function localLinearModel(given, gray, white) {
  const [{ height, width }] = given;
  const factor = Math.max(1, Math.min(MID_FACTOR, MID_LONG_SIDE_PX / Math.max(height, width)));
  const midHeight = Math.min(gray.height, Math.round(height * factor));
  const midWidth = Math.min(gray.width, Math.round(width * factor));
  const smallHeight = Math.min(gray.height, height),
    smallWidth = Math.min(gray.width, width);
  const chroma = resizeChroma(given, smallHeight, smallWidth);
  const guide = map(resize(gray, midHeight, midWidth), (level) => level / white);
  const smallGuide = resize(guide, smallHeight, smallWidth),
    blurPx = blurOf(chroma, smallGuide);
  const soft = resize(gaussianBlur(smallGuide, blurPx), midHeight, midWidth).data;

  const radius = Math.max(MIN_WINDOW_PX, WINDOW_PER_BLUR * blurPx);
  const [rows, columns] = [midHeight / smallHeight, midWidth / smallWidth].map((scale) =>
    Math.max(1, Math.round(radius * scale)),
  );
  const mean = (values) => boxBlur(values, rows, columns),
    guideMean = mean(guide).data;
  const divisor = mean(map(guide, (y) => y * y)).data.map((each, i) => each - guideMean[i] ** 2 + SLOPE_EPS);
  return resizeChroma(chroma, midHeight, midWidth).flatMap((target) => {
    const targetMean = mean(target).data,
      product = mean(map(target, (value, i) => value * guide.data[i])).data;
    const slope = mean(map(target, (_, i) => (product[i] - guideMean[i] * targetMean[i]) / divisor[i]));
    for (let i = 0; i < slope.data.length; i++) slope.data[i] = clamp(slope.data[i], -SLOPE_LIMIT, SLOPE_LIMIT);
    return [slope, map(target, (value, i) => value - slope.data[i] * soft[i])];
  });
}

/** Sigma, in pixels, of the blur that makes luma as soft as the chroma is. */
function blurOf(chroma, guide) {
  const wanted = fineShare(chroma),
    shares = [];
  const shareOf = (index) => (shares[index] ??= fineShare([gaussianBlur(guide, BLURS_PX[index])]));
  let low = 0,
    high = BLURS_PX.length - 1; // the more blur, the smaller the share: the wanted one lies between these two
  if (shareOf(low) <= wanted) return BLURS_PX[low];
  if (shareOf(high) >= wanted) return BLURS_PX[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (shareOf(middle) < wanted) high = middle;
    else low = middle;
  }
  const known = [low, high].map((index) => -Math.log(shareOf(index)));
  return Math.exp(interpolate(-Math.log(wanted), known, [Math.log(BLURS_PX[low]), Math.log(BLURS_PX[high])]));
}

/** Energy of detail finer than a blur of sigma 1, over that between sigmas 1 and 4. */
function fineShare(planes) {
  let fineEnergy = 0,
    coarseEnergy = 0,
    count = 0;
  for (const image of planes) {
    const fine = gaussianBlur(image, 1).data,
      coarse = gaussianBlur(image, 4).data;
    for (let i = 0; i < fine.length; i++) {
      fineEnergy += (image.data[i] - fine[i]) ** 2;
      coarseEnergy += (fine[i] - coarse[i]) ** 2;
    }
    count += fine.length;
  }
  return (fineEnergy / count + 1e-12) / (coarseEnergy / count + 1e-9);
}

/** A gray for a screen: smaller where it has more pixels than wanted. */
export function smaller(gray, maxPixels) {
  const scale = Math.min(1, Math.sqrt(maxPixels / (gray.height * gray.width)));
  return resize(gray, Math.max(1, Math.floor(gray.height * scale)), Math.max(1, Math.floor(gray.width * scale)));
}

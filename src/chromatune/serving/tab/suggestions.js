// Colors for a point: the version's own, and those of other versions and of hue words (`chromatune.Editor.suggest`).

import { resizeArea } from "./image.js";
import { CB_SCALE, CR_SCALE, LUMA, clamp, fitGamut, labOf } from "./luminance.js";
import { departure } from "./colorizer.js";
import { smaller } from "./recomposition.js";
import { withAttribute } from "./text.js";

const PREVIEW_PIXELS = 1_000_000;
const VARIANTS = 3,
  SUGGESTIONS = 6,
  LEAST_DIFFERENCE = 8;
const NEAR_SHARE = 1 / 40,
  LUMA_SIGMA = 0.05;

/** Chroma of an output, of other versions, the likeliest first, and of hue words: about a dozen passes of the model. */
export async function candidatesOf(colorizer, output) {
  const { photo, options } = output,
    { hues, hueForms } = colorizer.instructions.instructions;
  const asked = { size_px: options.size_px, seed: options.seed, own_color: "replace", invert: options.invert };
  const others = [1, 2, 3, 4].filter((number) => number !== options.variant).slice(0, VARIANTS),
    versions = [],
    words = [];
  for (const variant of others) {
    versions.push(await colorizer.output(photo, colorizer.resolve({ ...asked, prompt: options.prompt, variant })));
  }
  versions.sort((one, other) => departure(one.shift) - departure(other.shift));
  for (const hue of hues) {
    const prompt = withAttribute(options.prompt, hueForms[0], hue);
    words.push(await colorizer.output(photo, colorizer.resolve({ ...asked, prompt })));
  }
  return {
    own: colorizer.chroma(output),
    versions: versions.map((each) => colorizer.chroma(each)),
    words: words.map((each) => colorizer.chroma(each)),
  };
}

/** Colors "#rrggbb" for a point in pixels of the photo, visibly different, the most plausible first. */
export function suggest({ own, versions, words }, photo, x, y) {
  const white = photo.maxValue,
    luma = resizeArea(smaller(photo.plane, PREVIEW_PIXELS), own[0].height, own[0].width);
  const place = [luma, white, x / photo.width, y / photo.height],
    [first, level] = chromaAt(own, ...place);
  const ofWords = words.map((each) => chromaAt(each, ...place)[0]);
  const off = (chroma) => Math.hypot(chroma[0] - first[0], chroma[1] - first[1]);
  ofWords.sort((one, other) => off(one) - off(other));
  return distinct([first, ...versions.map((each) => chromaAt(each, ...place)[0]), ...ofWords], level);
}

/** The mean chroma of what lies near a point and is about as light, and the point's luma 0..1. */
function chromaAt(chroma, luma, white, x, y) {
  const { height, width } = luma,
    row = Math.min(height - 1, Math.floor(y * height)),
    column = Math.min(width - 1, Math.floor(x * width));
  const radius = Math.max(1, Math.round(NEAR_SHARE * Math.min(height, width))),
    level = luma.data[row * width + column] / white;
  let total = 0;
  const sums = [0, 0];
  for (let v = Math.max(0, row - radius); v <= Math.min(height - 1, row + radius); v++) {
    for (let u = Math.max(0, column - radius); u <= Math.min(width - 1, column + radius); u++) {
      const at = v * width + u,
        weight = Math.exp(-((luma.data[at] / white - level) ** 2) / (2 * LUMA_SIGMA ** 2));
      total += weight;
      for (const k of [0, 1]) sums[k] += weight * chroma[k].data[at];
    }
  }
  return [sums.map((each) => each / total), level];
}

function distinct(candidates, luma) {
  const found = [],
    labs = [];
  for (const candidate of candidates) {
    const [cb, cr] = fitGamut(...candidate, luma),
      blue = CB_SCALE * cb + luma,
      red = CR_SCALE * cr + luma;
    const rgb = [red, (luma - LUMA[0] * red - LUMA[2] * blue) / LUMA[1], blue].map((level) => clamp(level, 0, 1));
    const lab = labOf(...rgb);
    if (labs.some((other) => Math.hypot(...lab.map((each, k) => each - other[k])) < LEAST_DIFFERENCE)) continue;
    labs.push(lab);
    found.push(
      `#${rgb
        .map((level) =>
          Math.round(level * 255)
            .toString(16)
            .padStart(2, "0"),
        )
        .join("")}`,
    );
    if (found.length === SUGGESTIONS) break;
  }
  return found;
}

// Luma and chroma of gamma-encoded sRGB (full-range Rec.601), and what chroma fits into sRGB: `chromatune.color`.
// Chroma is a pair of planes, [Cb, Cr], -0.5..0.5.

import { boxBlur, map, plane, resize } from "./image.js";

export const LUMA = [0.299, 0.587, 0.114];
export const CB_SCALE = 1.772,
  CR_SCALE = 1.402; // B - Y' at Cb = 1, R - Y' at Cr = 1
export const RED_IN_GREEN = -LUMA[0] / LUMA[1],
  BLUE_IN_GREEN = -LUMA[2] / LUMA[1];

const FAINT_GAIN = 0.65,
  FAINT_CHROMA = 0.04; // see `vivid`
const SKIN_HUE = (123 * Math.PI) / 180,
  SKIN_SPREAD = (8 * Math.PI) / 180,
  SKIN_SHARE = 0.65;
const SMOOTH_SHARE = 0.024,
  SMOOTH_NOISE = 1e-3; // see `smoothChroma`
const TINY = 1e-9;

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Both planes of a chroma at another size. */
export const resizeChroma = (chroma, height, width) => chroma.map((each) => resize(each, height, width));

/** Chroma of planes of red, green and blue, 0..1, in one array after another. */
export function chromaOf(data, height, width) {
  const count = height * width,
    cb = plane(height, width),
    cr = plane(height, width);
  for (let i = 0; i < count; i++) {
    const luma = LUMA[0] * data[i] + LUMA[1] * data[count + i] + LUMA[2] * data[2 * count + i];
    cb.data[i] = (data[2 * count + i] - luma) / CB_SCALE;
    cr.data[i] = (data[i] - luma) / CR_SCALE;
  }
  return [cb, cr];
}

/** Faint chroma strengthened without a change of hue; skin less. `amount` 0..2. */
export function vivid([cb, cr], amount) {
  const found = [plane(cb.height, cb.width), plane(cb.height, cb.width)];
  for (let i = 0; i < cb.data.length; i++) {
    const faint = Math.hypot(cb.data[i], cr.data[i]) / FAINT_CHROMA;
    const factor = 1 + amount * FAINT_GAIN * faint * Math.exp(1 - faint) * unlikeSkin(cb.data[i], cr.data[i]);
    found[0].data[i] = clamp(cb.data[i] * factor, -0.5, 0.5);
    found[1].data[i] = clamp(cr.data[i] * factor, -0.5, 0.5);
  }
  return found;
}

/** How much of a change of color stays: less at the hue of skin. */
export function unlikeSkin(cb, cr) {
  const off = (Math.atan2(cr, cb) - SKIN_HUE) / SKIN_SPREAD;
  return 1 - SKIN_SHARE * Math.exp(-0.5 * off * off);
}

/** Blotches evened out within the edges of luma: a guided filter. `amount` 0..1. */
export function smoothChroma(chroma, luma, amount) {
  if (!amount) return chroma;
  const radius = Math.max(1, Math.round(SMOOTH_SHARE * Math.min(luma.height, luma.width)));
  const mean = (values) => boxBlur(values, radius),
    of = luma.data,
    lumaMean = mean(luma).data;
  const variance = mean(map(luma, (y) => y * y)).data.map((each, i) => each - lumaMean[i] ** 2);
  return chroma.map((own) => {
    const ownMean = mean(own).data;
    const product = mean(map(own, (value, i) => value * of[i])).data;
    const slope = map(own, (_, i) => (product[i] - ownMean[i] * lumaMean[i]) / (variance[i] + SMOOTH_NOISE));
    const offset = map(own, (_, i) => ownMean[i] - slope.data[i] * lumaMean[i]);
    const slopeMean = mean(slope).data,
      offsetMean = mean(offset).data;
    return map(own, (value, i) => value + amount * (slopeMean[i] * of[i] + offsetMean[i] - value));
  });
}

/** The largest part of a chroma that sRGB holds at a luma, 0..1. */
export function fitGamut(cb, cr, luma) {
  const blue = CB_SCALE * cb,
    red = CR_SCALE * cr,
    green = RED_IN_GREEN * red + BLUE_IN_GREEN * blue;
  const highest = Math.max(red, green, blue),
    lowest = Math.min(red, green, blue);
  const factor = clamp(Math.min((1 - luma) / Math.max(highest, TINY), luma / Math.max(-lowest, TINY)), 0, 1);
  return [cb * factor, cr * factor];
}

/** Chroma over luma of a color, 0..1 each: what its hue and saturation determine. Black counts as gray. */
export function relativeChroma(red, green, blue) {
  const luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue;
  if (!(luma > 0)) return [0, 0];
  return [(blue - luma) / CB_SCALE / Math.max(luma, TINY), (red - luma) / CR_SCALE / Math.max(luma, TINY)];
}

const LINEAR_STEPS = 4096; // of a table of the sRGB curve, linear between
const LINEAR = Float64Array.from({ length: LINEAR_STEPS + 2 }, (_, i) => {
  const v = i / LINEAR_STEPS;
  return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
});

function linear(v) {
  const at = clamp(v, 0, 1) * LINEAR_STEPS,
    below = Math.floor(at);
  return LINEAR[below] + (at - below) * (LINEAR[below + 1] - LINEAR[below]);
}

const labCurve = (t) => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116);

/** Gamma-encoded sRGB of linear light, 0..1 (IEC 61966-2-1). */
export function linearToSrgb(linear) {
  return linear <= 0.0031308 ? linear * 12.92 : 1.055 * linear ** (1 / 2.4) - 0.055;
}

/** CIELAB (D65) of sRGB, 0..1 each. */
export function labOf(red, green, blue) {
  const r = linear(red),
    g = linear(green),
    b = linear(blue);
  const x = labCurve((0.412453 * r + 0.35758 * g + 0.180423 * b) / 0.950456);
  const y = labCurve(0.212671 * r + 0.71516 * g + 0.072169 * b);
  const z = labCurve((0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.088754);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

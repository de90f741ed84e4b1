// What the model is shown of an old photograph: a small copy with even tones, without scratches, dust and screen.
// `chromatune.color.restored_view` says what is done and why; the limits below are its own.

import { interpolate, map, percentile, resize, resizeArea, roundHalfEven } from "./image.js";
import { findDamage, inpaint } from "./damage.js";
import { removeScreen } from "./screen.js";
import { clamp } from "./luminance.js";

const REPAIR_PX = 320;
const PERCENTILES = [0.5, 99.9];
const FADED_BLACK = [
    [0.85, 0.95],
    [0.15, 0.3],
  ],
  FADES_OVER = 0.1,
  TRUE_BLACK = 0.06;
const WHITES = [
  [0, 0.45, 0.7, 1],
  [0.9, 0.9, 0.7, 1],
];
const LEAST_RANGE = 0.05,
  CHANGED = 0.08;
const WIDEST_BORDER = 0.15,
  EVEN = 0.03,
  BORDER_EDGE = 0.08;

const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}%`;

/** A gray at another size, uint8 or uint16 ⇒ float32 0..1. */
export function shrink(gray, height, width) {
  const scale = 1 / (gray.data instanceof Uint16Array ? 65535 : 255);
  return map(resize(gray, height, width), (level) => level * scale);
}

/**
 * A photo as the model is to see it.
 *
 * @param {Plane} gray uint8 or uint16 luma at full size
 * @returns {{gray: Plane, chromaGain: number, notes: string[]}} float32 0..1, height × width
 */
export function restoredView(gray, height, width) {
  const scale = Math.min(1, REPAIR_PX / Math.min(gray.height, gray.width));
  const at = [Math.max(height, roundHalfEven(gray.height * scale)), Math.max(width, roundHalfEven(gray.width * scale))];
  let copy = shrink(gray, ...at),
    levels = measureLevels(copy);
  const damaged = findDamage(applyLevels(levels, copy));
  if (damaged) {
    copy = inpaint(copy, damaged.mask);
    levels = measureLevels(copy); // without the scratches' white
  }
  const small = resizeArea(copy, height, width),
    descreened = removeScreen(small);
  const notes = [
    levelsNote(levels),
    damaged ? `scratches and dust filled in (${percent(damaged.share, 1)} of it)` : "",
    descreened === small ? "" : "a printer's screen taken out",
  ].filter(Boolean);
  return { gray: applyLevels(levels, descreened), chromaGain: levels.white / levels.toWhite, notes };
}

function measureLevels(gray) {
  const tones = everyOther(gray, ...insideBorder(gray)).sort();
  const [black, white] = PERCENTILES.map((each) => percentile(tones, each));
  if (white - black < LEAST_RANGE) return { black: 0, white: 1, toBlack: 0, toWhite: 1 };
  const faded = interpolate(white, ...FADED_BLACK);
  const toBlack = interpolate(black, [0, faded, faded + FADES_OVER, 1], [0, faded, TRUE_BLACK, TRUE_BLACK]);
  return { black, white, toBlack, toWhite: interpolate(white, ...WHITES) };
}

function everyOther({ data, width }, top, bottom, left, right) {
  const found = [];
  for (let y = top; y < bottom; y += 2) for (let x = left; x < right; x += 2) found.push(data[y * width + x]);
  return Float64Array.from(found);
}

function applyLevels({ black, white, toBlack, toWhite }, gray) {
  const gain = (toWhite - toBlack) / Math.max(white - black, LEAST_RANGE);
  return map(gray, (level) => clamp((level - black) * gain + toBlack, 0, 1));
}

function levelsNote({ black, white, toBlack, toWhite }) {
  const changed = Math.max(Math.abs(toBlack - black), Math.abs(toWhite - white)) > CHANGED;
  return changed ? `tones of ${percent(black)} to ${percent(white)} stretched` : "";
}

/** Top, bottom, left and right of what lies inside an even border, such as of a print's paper. */
function insideBorder({ data, height, width }) {
  const rows = (y) => (x) => data[y * width + x];
  const top = borderLines(height, width, rows),
    bottom = height - borderLines(height, width, (y) => rows(height - 1 - y));
  const count = bottom - top,
    columns = (x) => (y) => data[(top + y) * width + x];
  const left = borderLines(width, count, columns),
    right = width - borderLines(width, count, (x) => columns(width - 1 - x));
  return [top, bottom, left, right];
}

/** How many of the first lines, each of `length` values, are an even border with an edge after it; 0 for none. */
function borderLines(lines, length, line) {
  const looked = Math.min(lines, Math.max(2, roundHalfEven(WIDEST_BORDER * lines)));
  let first = 0,
    count = 0;
  for (; count < looked; count++) {
    const value = line(count);
    let sum = 0,
      squares = 0;
    for (let i = 0; i < length; i++) sum += value(i);
    const mean = sum / length;
    for (let i = 0; i < length; i++) squares += (value(i) - mean) ** 2;
    if (count === 0) first = mean;
    if (Math.sqrt(squares / length) > EVEN || Math.abs(mean - first) > EVEN) break;
  }
  if (count === looked || count === 0) return 0;
  const after = Math.min(lines, count + Math.max(2, Math.floor(lines / 50)));
  for (let k = count; k < after; k++) {
    const value = line(k);
    let off = 0;
    for (let i = 0; i < length; i++) off += Math.abs(value(i) - first);
    if (off / length > BORDER_EDGE) return Math.min(count + 2, looked);
  }
  return 0;
}

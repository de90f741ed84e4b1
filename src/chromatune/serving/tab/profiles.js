// Color profiles of curves and a matrix, or of one curve for gray (ICC.1:2022, 8.3.3), brought to sRGB; and sRGB's own.
// Python has LittleCMS for 8-bit pictures: the two differ by a level at most. Profiles of tables are not read.

import { linearToSrgb } from "./luminance.js";
import { latin1, viewOf } from "./metadata.js";

const D50 = [0.9642, 1, 0.8249];
const COLUMNS = [
  // XYZ (D50) of linear sRGB's red, green and blue
  [0.4360747, 0.2225045, 0.0139322],
  [0.3850649, 0.7168786, 0.0971045],
  [0.1430804, 0.0606169, 0.7141733],
];
const FROM_XYZ = inverse(COLUMNS);
const LEVELS = 65536;
const SAME_WITHIN = 1; // of 255: a profile that changes no probe by more is sRGB under another name
const PNG_GAMMA_IS_SRGB_WITHIN = 0.05;

/**
 * Returns what a profile does to samples: {kind: "same"|"gray"|"color", ...} to be given to `convert`; null if it is
 * damaged, for other colors, or works by tables.
 *
 * @param {Uint8Array} icc
 * @param {boolean} isGray the picture has one channel beside alpha.
 */
export function readProfile(icc, isGray) {
  try {
    const tags = tagsOf(icc),
      space = latin1(icc, 16, 20);
    if (latin1(icc, 20, 24) !== "XYZ ") return null;
    if (space === "GRAY" && isGray) return sameOr({ kind: "gray", curves: [curveOf(tags.get("kTRC"))] }, true);
    if (space !== "RGB " || [...tags.keys()].some((name) => name.startsWith("A2B"))) return null;
    const curves = ["rTRC", "gTRC", "bTRC"].map((name) => curveOf(tags.get(name)));
    const columns = ["rXYZ", "gXYZ", "bXYZ"].map((name) => fixedPoint(tags.get(name), 8, 3));
    const matrix = columns.map((column) => FROM_XYZ.map((row) => row.reduce((sum, v, i) => sum + v * column[i], 0)));
    const found = sameOr({ kind: "color", curves, matrix }, false);
    // An RGB profile on gray is what converters leave behind; it says nothing of gray, unless it is sRGB
    return isGray && found.kind !== "same" ? null : found;
  } catch {
    return null;
  }
}

/** Brings interleaved samples to sRGB in place: Uint8Array or Uint16Array of `channels`, alpha last of 2 and 4. */
export function convert(samples, channels, profile) {
  if (profile.kind === "same") return;
  const white = samples instanceof Uint8Array ? 255 : 65535,
    scale = 65535 / white;
  profile.table ??= white === 255 ? Float32Array.from({ length: LEVELS }, (_, i) => linearToSrgb(i / 65535)) : null;
  const { curves, matrix, table } = profile;
  const coded = (linear) => {
    const inside = Math.min(Math.max(linear, 0), 1);
    return Math.round((table ? table[Math.round(inside * 65535)] : linearToSrgb(inside)) * white);
  };
  const [red, green, blue] = curves;
  for (let i = 0; i < samples.length; i += channels) {
    const r = red[samples[i] * scale];
    if (!matrix) {
      samples[i] = coded(r);
      continue;
    }
    const g = green[samples[i + 1] * scale],
      b = blue[samples[i + 2] * scale];
    for (let c = 0; c < 3; c++) samples[i + c] = coded(matrix[0][c] * r + matrix[1][c] * g + matrix[2][c] * b);
  }
}

/** Returns a table from sample to sRGB of a PNG with a gamma and no profile; null where it changes nothing. */
export function gammaTable(gamma, white) {
  if (!(gamma > 0.05 && gamma < 20) || Math.abs(gamma * 2.2 - 1) <= PNG_GAMMA_IS_SRGB_WITHIN) return null;
  const coded = (_, i) => Math.round(linearToSrgb((i / white) ** (1 / gamma)) * white);
  return (white === 255 ? Uint8Array : Uint16Array).from({ length: white + 1 }, coded);
}

/** Returns a small sRGB profile, version 4: what results of a photo with a profile carry. */
export function srgbProfile() {
  const text = (value) => [...value].flatMap((letter) => [0, letter.charCodeAt(0)]);
  const long = (value) => [value >> 24, value >> 16, value >> 8, value].map((each) => each & 255);
  const ascii = (value) => Array.from(value, (letter) => letter.charCodeAt(0));
  const fixed = (...values) => values.flatMap((value) => long(Math.round(value * 65536)));
  const words = (value) => [
    ...ascii("mluc"),
    ...long(0),
    ...long(1),
    ...long(12),
    ...ascii("enUS"),
    ...long(2 * value.length),
    ...long(28),
    ...text(value),
  ];
  const xyz = (values) => [...ascii("XYZ "), ...long(0), ...fixed(...values)];
  const curve = [...ascii("para"), ...long(0), 0, 3, 0, 0, ...fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)];
  const tags = Object.entries({
    desc: words("sRGB"),
    cprt: words("No copyright"),
    wtpt: xyz(D50),
    rXYZ: xyz(COLUMNS[0]),
    gXYZ: xyz(COLUMNS[1]),
    bXYZ: xyz(COLUMNS[2]),
    rTRC: curve,
    gTRC: curve,
    bTRC: curve,
  });
  const directory = [...long(tags.length)],
    content = [];
  for (const [name, value] of tags) {
    directory.push(...ascii(name), ...long(132 + 12 * tags.length + content.length), ...long(value.length));
    content.push(...value, ...new Array(-value.length & 3).fill(0));
  }
  const head = new Array(128).fill(0);
  const put = (place, values) => head.splice(place, values.length, ...values);
  put(0, long(128 + directory.length + content.length));
  put(8, long(0x04300000));
  put(12, ascii("mntrRGB XYZ "));
  put(24, [7, 208, 0, 1, 0, 1]); // a fixed date: the same result is the same file
  put(36, ascii("acsp"));
  put(68, fixed(...D50));
  return Uint8Array.from([...head, ...directory, ...content]);
}

function sameOr(profile, isGray) {
  const steps = Array.from({ length: isGray ? 256 : 16 }, (_, i) => (isGray ? i : 17 * i));
  const probe = isGray ? steps : steps.flatMap((r) => steps.flatMap((g) => steps.flatMap((b) => [r, g, b])));
  const samples = Uint8Array.from(probe);
  convert(samples, isGray ? 1 : 3, profile);
  const isSame = samples.every((value, i) => Math.abs(value - probe[i]) <= SAME_WITHIN);
  return isSame ? { kind: "same" } : { ...profile, table: undefined };
}

function tagsOf(icc) {
  const view = viewOf(icc),
    tags = new Map();
  const count = Math.min(view.getUint32(128), 1000);
  for (let i = 0, at = 132; i < count; i++, at += 12) {
    const start = view.getUint32(at + 4);
    tags.set(latin1(icc, at, at + 4), icc.subarray(start, start + view.getUint32(at + 8)));
  }
  return tags;
}

/** Linear light of each 16-bit value, Float32Array(65536), of a curveType or parametricCurveType tag. */
function curveOf(tag) {
  const view = viewOf(tag),
    kind = latin1(tag, 0, 4),
    curve = new Float32Array(LEVELS);
  if (kind === "curv") {
    const count = view.getUint32(8),
      point = (i) => view.getUint16(12 + 2 * i) / 65535;
    if (count > 1) point(count - 1); // fails where the tag is shorter
    const gamma = count === 1 ? view.getUint16(12) / 256 : 1;
    return curve.map((_, i) => {
      if (count < 2) return (i / 65535) ** gamma;
      const at = (i / 65535) * (count - 1),
        low = Math.min(Math.floor(at), count - 2);
      return point(low) + (at - low) * (point(low + 1) - point(low));
    });
  }
  const type = view.getUint16(8),
    [gamma, ...rest] = fixedPoint(tag, 12, [1, 3, 4, 5, 7][type]);
  if (kind !== "para") throw new RangeError("no curve");
  const [a, b] = type ? rest : [1, 0],
    [slope, start] = type >= 3 ? rest.slice(2) : [0, 0];
  const [offset, below] = type === 4 ? rest.slice(4) : type === 2 ? [rest[2], rest[2]] : [0, 0];
  return curve.map((_, i) => {
    const x = i / 65535,
      value = x >= start ? Math.max(a * x + b, 0) ** gamma + offset : slope * x + below;
    return Math.min(Math.max(value, 0), 1);
  });
}

function fixedPoint(tag, place, count) {
  const view = viewOf(tag);
  return Array.from({ length: count }, (_, i) => view.getInt32(place + 4 * i) / 65536);
}

/** Rows of the inverse of a matrix that is given by its columns. */
function inverse([a, b, c]) {
  const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
  const rows = [cross(b, c), cross(c, a), cross(a, b)];
  const size = a.reduce((sum, value, i) => sum + value * rows[0][i], 0);
  return rows.map((row) => row.map((value) => value / size));
}

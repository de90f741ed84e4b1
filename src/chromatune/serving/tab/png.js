// PNG (third edition): read with all its color types and 16 bits, row by row, and written with what the photo carries.
// Inflating is the browser's own, and stops where the picture is full: libraries inflate all that a file promises.
// Deflating is a library's, at level 1: the browser's has no levels, and takes twice as long for a tenth less.

import { Zlib } from "fflate";

import { joined, latin1, readExif, sensible, viewOf } from "./metadata.js";
import { Inflated, Planes, checkSize, damaged, unpacked, words } from "./planes.js";

export const PNG_SIGNATURE = "\x89PNG\r\n\x1a\n";
const MOST_PROFILE = 16 << 20,
  MOST_TEXT = 16 << 20; // bytes
const MOST_CHUNKS = 1_000_000;
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 },
  PALETTE = 3;
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
// First column and row, and steps
const PASSES = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
];
const XMP_KEYWORD = "XML:com.adobe.xmp";
const ROWS_AT_ONCE_BYTES = 1 << 20;
const SUB = 1; // filter of written rows

let crcTable = null;

/** Returns a PNG's header and chunks: sizes are those of the header, nothing is inflated but profile and XMP. */
export async function readPngHead(bytes) {
  const view = viewOf(bytes);
  if (bytes.length < 33 || latin1(bytes, 12, 16) !== "IHDR") throw damaged("no header");
  const head = { width: view.getUint32(16), height: view.getUint32(20), bits: bytes[24], type: bytes[25] };
  head.interlaced = bytes[28] === 1;
  if (!DEPTHS[head.type]?.includes(bytes[24])) throw damaged("no such kind of pixels");
  head.data = [];
  for (let place = 33, count = 0; place + 8 <= bytes.length && count < MOST_CHUNKS; count++) {
    const length = view.getUint32(place),
      kind = latin1(bytes, place + 4, place + 8);
    const content = bytes.subarray(place + 8, place + 8 + length);
    if (kind === "IEND") break;
    await takeChunk(head, kind, content);
    place += 12 + length;
  }
  return head;
}

async function takeChunk(head, kind, content) {
  const view = viewOf(content);
  if (kind === "IDAT") head.data.push(content);
  else if (kind === "PLTE") head.palette = content;
  else if (kind === "tRNS") head.transparency = content;
  else if (kind === "eXIf") head.exif ??= readExif(content);
  else if (kind === "sRGB") head.isSrgb = true;
  else if (kind === "gAMA" && content.length === 4) head.gamma = view.getUint32(0) / 100000;
  else if (kind === "pHYs" && content.length === 9 && content[8] === 1) {
    head.dpi = sensible(view.getUint32(0) * 0.0254, view.getUint32(4) * 0.0254);
  } else if (kind === "iCCP" && !head.icc) {
    const start = content.indexOf(0) + 2;
    head.icc = await Inflated.whole(content.subarray(start), MOST_PROFILE);
    head.hasOddProfile = !head.icc;
  } else if (kind === "iTXt" && latin1(content, 0, XMP_KEYWORD.length + 1) === `${XMP_KEYWORD}\0`) {
    const isCompressed = content[XMP_KEYWORD.length + 1] === 1;
    let start = content.indexOf(0, XMP_KEYWORD.length + 3); // after language and translated keyword
    start = content.indexOf(0, start + 1) + 1;
    const text = content.subarray(start);
    if (text.length <= MOST_TEXT) head.xmp = isCompressed ? await Inflated.whole(text, MOST_TEXT) : text;
  }
}

/**
 * Returns the planes of a PNG.
 *
 * @param head of `readPngHead`.
 * @param {number} orientation 1..8.
 * @param change see `Planes`; of rows with `channelsOf(head)` channels.
 */
export async function decodePng(head, maxPixels, orientation, change) {
  const { width, height, bits, type, interlaced } = head;
  checkSize(width, height, maxPixels);
  const planes = new Planes(width, height, channelsOf(head), bits === 16 ? 65535 : 255, orientation, change);
  const stream = new Inflated(head.data),
    bitsPerPixel = bits * CHANNELS[type],
    away = Math.max(1, bitsPerPixel >> 3);
  try {
    for (const [x, y, across, down] of interlaced ? PASSES : [[0, 0, 1, 1]]) {
      const count = Math.ceil((width - x) / across),
        length = Math.ceil((count * bitsPerPixel) / 8);
      if (count <= 0) continue;
      let row = new Uint8Array(1 + length),
        before = new Uint8Array(1 + length);
      for (let at = y; at < height; at += down) {
        if ((await stream.read(row)) < row.length) throw damaged("pixels are missing");
        unfilter(row, before, away);
        planes.put(at, samplesOf(head, row.subarray(1), count), x, across);
        [row, before] = [before, row];
      }
    }
  } finally {
    stream.close();
  }
  return planes.finish();
}

/** Channels of a PNG's rows once palette and transparent color are applied. */
export function channelsOf({ type, transparency }) {
  const channels = type === PALETTE ? 3 : CHANNELS[type];
  return transparency && channels % 2 ? channels + 1 : channels;
}

/** Takes back a row's filter, in place; its first byte says which. `away` bytes are a pixel. */
function unfilter(row, before, away) {
  const end = row.length;
  switch (row[0]) {
    case 0:
      return;
    case 1:
      for (let i = 1 + away; i < end; i++) row[i] += row[i - away];
      return;
    case 2:
      for (let i = 1; i < end; i++) row[i] += before[i];
      return;
    case 3:
      for (let i = 1; i < end; i++) row[i] += ((i > away ? row[i - away] : 0) + before[i]) >> 1;
      return;
    case 4:
      for (let i = 1; i <= away && i < end; i++) row[i] += before[i];
      for (let i = 1 + away; i < end; i++) row[i] += nearest(row[i - away], before[i], before[i - away]);
      return;
    default:
      throw damaged("no such filter");
  }
}

function nearest(left, above, corner) {
  const guess = left + above - corner;
  const toLeft = Math.abs(guess - left),
    toAbove = Math.abs(guess - above),
    toCorner = Math.abs(guess - corner);
  return toLeft <= toAbove && toLeft <= toCorner ? left : toAbove <= toCorner ? above : corner;
}

/** Returns a row's samples, of 8 or 16 bits, with palette and transparent color applied. */
function samplesOf(head, bytes, count) {
  const { bits, type, transparency } = head,
    channels = CHANNELS[type];
  let row;
  if (bits === 16) row = words(viewOf(bytes), count * channels, false);
  else if (bits === 8)
    row = bytes.slice(); // the next row needs it as it is
  else row = unpacked(bytes, bits, count);
  if (type === PALETTE) return fromPalette(head, row);
  const keyed = transparency && channels % 2 ? withKey(row, channels, transparency, bits === 16 ? 65535 : 255) : row;
  if (bits < 8) {
    const factor = 255 / ((1 << bits) - 1),
      step = channelsOf(head);
    for (let i = 0; i < keyed.length; i += step) keyed[i] *= factor;
  }
  return keyed;
}

function fromPalette({ palette = new Uint8Array(0), transparency }, indices) {
  const channels = transparency ? 4 : 3,
    row = new Uint8Array(indices.length * channels);
  for (let i = 0, at = 0; i < indices.length; i++, at += channels) {
    for (let c = 0; c < 3; c++) row[at + c] = palette[3 * indices[i] + c];
    if (transparency) row[at + 3] = transparency[indices[i]] ?? 255;
  }
  return row;
}

function withKey(row, channels, transparency, white) {
  const view = viewOf(transparency),
    keyed = new row.constructor((row.length / channels) * (channels + 1));
  const key = [0, 2, 4].map((at) => (at + 2 <= transparency.length ? view.getUint16(at) : -1));
  for (let i = 0, at = 0; i < row.length; i += channels, at += channels + 1) {
    let isKey = true;
    for (let c = 0; c < channels; c++) {
      keyed[at + c] = row[i + c];
      isKey &&= row[i + c] === key[c];
    }
    keyed[at + channels] = isKey ? 0 : white;
  }
  return keyed;
}

/**
 * Returns a PNG of 8 or 16 bits. Rows are filtered and deflated some at a time.
 *
 * @param {Uint8Array|Uint16Array} rgb interleaved; its type decides the depth.
 * @param {Uint8Array|Uint16Array|null} alpha of the same type.
 * @param {{icc, exif, dpi, xmp}} extra each may be null.
 */
export async function encodePng(rgb, alpha, width, height, extra = {}) {
  const head = new Uint8Array(13),
    view = viewOf(head);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([rgb instanceof Uint16Array ? 16 : 8, alpha ? 6 : 2], 8);
  const signature = Uint8Array.from(PNG_SIGNATURE, (letter) => letter.charCodeAt(0));
  const parts = [signature, chunk("IHDR", head), ...(await extraChunks(extra))];
  const rowBytes = 1 + width * (alpha ? 4 : 3) * rgb.BYTES_PER_ELEMENT;
  const rows = Math.max(1, Math.floor(ROWS_AT_ONCE_BYTES / rowBytes));
  const deflate = new Zlib({ level: 1 }, (piece) => piece.length && parts.push(chunk("IDAT", piece)));
  for (let top = 0; top < height; top += rows) {
    const bottom = Math.min(height, top + rows),
      strip = new Uint8Array((bottom - top) * rowBytes);
    for (let y = top; y < bottom; y++) filterRow(rgb, alpha, y, width, strip.subarray((y - top) * rowBytes));
    deflate.push(strip, bottom === height);
  }
  parts.push(chunk("IEND", new Uint8Array(0)));
  return joined(parts);
}

/** Writes a row's bytes, each less the one of the pixel before. */
function filterRow(rgb, alpha, y, width, into) {
  const size = rgb.BYTES_PER_ELEMENT,
    away = (alpha ? 4 : 3) * size;
  into[0] = SUB;
  let at = 1;
  for (let i = y * width; i < (y + 1) * width; i++) {
    for (let c = 0; c < (alpha ? 4 : 3); c++) {
      const value = c === 3 ? alpha[i] : rgb[3 * i + c];
      if (size === 2) into[at++] = value >> 8;
      into[at++] = value & 255;
    }
  }
  for (let i = at - 1; i > away; i--) into[i] -= into[i - away];
}

async function extraChunks({ icc, exif, dpi, xmp }) {
  const chunks = [],
    text = (value) => Uint8Array.from(value, (letter) => letter.charCodeAt(0));
  if (icc) {
    const stream = new Blob([icc]).stream().pipeThrough(new CompressionStream("deflate"));
    const content = new Uint8Array(await new Response(stream).arrayBuffer());
    chunks.push(chunk("iCCP", joined([text("sRGB\0\0"), content])));
  }
  if (dpi) {
    const content = new Uint8Array(9);
    dpi.forEach((value, i) => viewOf(content).setUint32(4 * i, Math.min(Math.round(value / 0.0254), 2 ** 31 - 1)));
    content[8] = 1;
    chunks.push(chunk("pHYs", content));
  }
  if (exif) chunks.push(chunk("eXIf", exif));
  if (xmp) chunks.push(chunk("iTXt", joined([text(`${XMP_KEYWORD}\0\0\0\0\0`), new TextEncoder().encode(xmp)])));
  return chunks;
}

function chunk(kind, content) {
  const whole = new Uint8Array(12 + content.length),
    view = viewOf(whole);
  view.setUint32(0, content.length);
  for (let i = 0; i < 4; i++) whole[4 + i] = kind.charCodeAt(i);
  whole.set(content, 8);
  view.setUint32(8 + content.length, crcOf(whole.subarray(4, 8 + content.length)));
  return whole;
}

function crcOf(bytes) {
  crcTable ??= Uint32Array.from({ length: 256 }, (_, n) => {
    for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
    return n;
  });
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = crcTable[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

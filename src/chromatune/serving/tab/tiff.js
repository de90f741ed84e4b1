// TIFF 6.0: gray, palette and RGB of up to 16 bits, in strips or tiles, uncompressed or by LZW, deflate or PackBits.
// The libraries for it are large, or misread what they do not know, and inflate without end; all else is refused here.

import { exifOf, latin1, numbersOf, readDirectory, viewOf } from "./metadata.js";
import { Inflated, Planes, Refusal, checkSize, damaged, unpacked, words } from "./planes.js";

const TAG = {
  subfile: 254,
  width: 256,
  height: 257,
  bits: 258,
  compression: 259,
  photometric: 262,
  strips: 273,
  orientation: 274,
  channels: 277,
  rowsPerStrip: 278,
  stripBytes: 279,
  planar: 284,
  predictor: 317,
  palette: 320,
  tileWidth: 322,
  tileHeight: 323,
  tiles: 324,
  tileBytes: 325,
  extra: 338,
  format: 339,
  xmp: 700,
  icc: 34675,
  dng: 50706,
};
const MOST_PAGES = 1000;
const NONE = 1,
  LZW = 5,
  DEFLATE = [8, 32946],
  PACKBITS = 32773;
const WHITE_IS_ZERO = 0,
  RGB = 2,
  PALETTE = 3,
  PREMULTIPLIED = 1;
const SENSOR_DATA = [32803, 34892];
const MOST_TILE_PIXELS = 1 << 26; // beyond the picture itself

function unreadable(what) {
  return new Refusal(
    `a TIFF ${what} cannot be read in the browser; use the installed program, or save it as PNG or JPEG`,
    415,
  );
}

/** Returns the largest page of a TIFF: {width, height, exif, icc, xmp, orientation, ...}, for `decodeTiff`. */
export function readTiffHead(bytes) {
  const order = latin1(bytes, 0, 4),
    little = order[0] === "I";
  if (order.charCodeAt(little ? 2 : 3) === 43) throw unreadable("with 64-bit places");
  const pages = [],
    seen = new Set();
  for (let place = viewOf(bytes).getUint32(4, little); place && !seen.has(place) && pages.length < MOST_PAGES;) {
    seen.add(place);
    const { entries, next } = readDirectory(bytes, place, little);
    const one = (tag, usual) => numbersOf(entries, tag, little)?.[0] ?? usual;
    const isRaw = entries.has(TAG.dng) || SENSOR_DATA.includes(one(TAG.photometric));
    if (isRaw) throw unreadable("with a camera's raw data");
    const size = { width: one(TAG.width), height: one(TAG.height) };
    if (entries.size) pages.push({ bytes, little, entries, one, place, ...size });
    place = next;
  }
  const full = pages.filter(({ one, width, height }) => width && height && !(one(TAG.subfile, 0) & 5));
  const page = (full.length ? full : pages).reduce((best, each) => {
    return best && best.width * best.height >= each.width * each.height ? best : each;
  }, null);
  if (!page?.width || !page.height) throw damaged("no picture in it");
  page.exif = exifOf(bytes, page.place, little);
  page.icc = page.entries.get(TAG.icc)?.data;
  page.xmp = page.entries.get(TAG.xmp)?.data;
  return Object.assign(page, layoutOf(page));
}

function layoutOf({ entries, little, one, width, height }) {
  const all = (tag) => numbersOf(entries, tag, little);
  const stored = one(TAG.channels, 1),
    bits = all(TAG.bits) ?? [1],
    photometric = one(TAG.photometric, 1);
  const colors = photometric === RGB ? 3 : 1,
    extra = all(TAG.extra)?.[0] ?? 0;
  const compression = one(TAG.compression, NONE),
    predictor = one(TAG.predictor, 1);
  const isTiled = entries.has(TAG.tiles);
  const fits = stored >= colors && stored <= colors + 1 && (photometric !== PALETTE || stored === 1);
  if (photometric > PALETTE || !fits) throw unreadable("of such colors");
  const depths = photometric === PALETTE || (photometric < RGB && stored === 1) ? [1, 2, 4, 8, 16] : [8, 16];
  if (!depths.includes(bits[0]) || bits.some((each) => each !== bits[0])) throw unreadable(`of ${bits[0]} bits`);
  if (photometric === PALETTE && bits[0] > 8) throw unreadable("with a palette of 16 bits");
  if ((all(TAG.format) ?? [1]).some((each) => each !== 1)) throw unreadable("of signed or broken numbers");
  if (![NONE, LZW, ...DEFLATE, PACKBITS].includes(compression)) throw unreadable("compressed in this way");
  if (predictor > 2 || (predictor === 2 && bits[0] < 8)) throw unreadable("with such a predictor");
  return {
    stored,
    bits: bits[0],
    photometric,
    colors,
    extra,
    compression,
    predictor,
    palette: all(TAG.palette) ?? [],
    isPlanar: one(TAG.planar, 1) === 2 && stored > 1,
    blockWidth: isTiled ? one(TAG.tileWidth) : width,
    blockHeight: isTiled ? one(TAG.tileHeight) : Math.min(one(TAG.rowsPerStrip, height), height),
    places: all(isTiled ? TAG.tiles : TAG.strips) ?? [],
    lengths: all(isTiled ? TAG.tileBytes : TAG.stripBytes) ?? [],
  };
}

/** Channels of a TIFF's rows once its palette is applied. */
export function channelsOf({ photometric, colors, stored, extra }) {
  if (photometric === PALETTE) return 3;
  return stored > colors && extra ? colors + 1 : colors;
}

/** Returns the planes of a page of `readTiffHead`; orientation and change are as in `decodePng`. */
export async function decodeTiff(page, maxPixels, orientation, change) {
  const { width, height, blockWidth, blockHeight, bits, stored, isPlanar, places } = page;
  checkSize(width, height, maxPixels);
  const isOdd = !(blockWidth >= 1 && blockHeight >= 1) || blockWidth * blockHeight > width * height + MOST_TILE_PIXELS;
  const across = Math.ceil(width / blockWidth),
    down = Math.ceil(height / blockHeight),
    planes = isPlanar ? stored : 1;
  if (isOdd || places.length < across * down * planes) throw damaged("parts of it are missing");
  const result = new Planes(width, height, channelsOf(page), bits === 16 ? 65535 : 255, orientation, change);
  const Samples = bits === 16 ? Uint16Array : Uint8Array;
  for (let block = 0; block < down; block++) {
    const top = block * blockHeight,
      rows = Math.min(blockHeight, height - top);
    const strip = new Samples(width * rows * stored);
    for (let plane = 0; plane < planes; plane++) {
      for (let column = 0; column < across; column++) {
        const part = await partOf(page, plane * across * down + block * across + column, rows);
        lay(page, part, strip, rows, column * blockWidth, plane);
      }
    }
    for (let y = 0; y < rows; y++) {
      result.put(top + y, finished(page, strip.subarray(y * width * stored, (y + 1) * width * stored)));
    }
  }
  return result.finish();
}

/** Returns the samples of a strip or tile, as many rows as are wanted. */
async function partOf(page, number, rows) {
  const { bytes, places, lengths, compression, bits, blockWidth, predictor, little } = page;
  const each = page.isPlanar ? 1 : page.stored,
    perRow = blockWidth * each,
    rowBytes = Math.ceil((perRow * bits) / 8);
  const packed = bytes.subarray(places[number], places[number] + (lengths[number] ?? rows * rowBytes));
  const found = await expanded(packed, compression, rows * rowBytes);
  if (bits < 8) {
    const unpackedRow = (y) => unpacked(found.subarray(y * rowBytes, (y + 1) * rowBytes), bits, perRow);
    const samples = new Uint8Array(rows * perRow);
    for (let y = 0; y < rows; y++) samples.set(unpackedRow(y), y * perRow);
    return samples;
  }
  const samples = bits === 8 ? found : words(viewOf(found), rows * perRow, little);
  if (predictor === 2) {
    for (let start = 0; start < samples.length; start += perRow) {
      for (let i = start + each; i < start + perRow; i++) samples[i] += samples[i - each];
    }
  }
  return samples;
}

async function expanded(packed, compression, length) {
  if (compression === NONE) {
    if (packed.length < length) throw damaged("pixels are missing");
    return packed.slice(0, length);
  }
  const found = new Uint8Array(length);
  let count = 0;
  if (DEFLATE.includes(compression)) {
    const stream = new Inflated([packed]);
    count = await stream.read(found);
    stream.close();
  } else count = compression === LZW ? expandLzw(packed, found) : expandPackBits(packed, found);
  if (count < length) throw damaged("pixels are missing");
  return found;
}

/** Returns how many bytes were expanded (TIFF 6.0, section 13). */
function expandLzw(packed, into) {
  // Each code stands for bytes that are in the result already: where they begin there, and how many they are
  const starts = new Uint32Array(4097),
    lengths = new Uint16Array(4097);
  let at = 0,
    next = 258,
    width = 9,
    held = 0,
    bits = 0,
    last = -1;
  for (let i = 0; i < packed.length && at < into.length;) {
    while (bits < width && i < packed.length) {
      held = ((held << 8) | packed[i++]) & 0xffffff;
      bits += 8;
    }
    if (bits < width) break;
    const code = (held >> (bits -= width)) & ((1 << width) - 1);
    if (code === 257) break;
    if (code === 256) {
      [next, width, last] = [258, 9, -1];
      continue;
    }
    if (code > next || (code === next && last < 0) || next > 4096) throw damaged("no such LZW code");
    const start = at;
    if (last >= 0) [starts[next], lengths[next]] = [start - lengthOf(last, lengths), lengthOf(last, lengths) + 1];
    if (code < 256) into[at++] = code;
    else for (let k = 0; k < lengths[code] && at < into.length; k++) into[at++] = into[starts[code] + k];
    if (last >= 0) next++;
    last = code;
    if (next + 1 >= 1 << width && width < 12) width++;
  }
  return at;
}

function lengthOf(code, lengths) {
  return code < 256 ? 1 : lengths[code];
}

function expandPackBits(packed, into) {
  let at = 0;
  for (let i = 0; i < packed.length && at < into.length;) {
    const count = (packed[i++] << 24) >> 24;
    if (count >= 0) {
      const some = packed.subarray(i, i + Math.min(count + 1, into.length - at));
      into.set(some, at);
      at += some.length;
      i += count + 1;
    } else if (count > -128) {
      const end = Math.min(at + 1 - count, into.length);
      into.fill(packed[i++], at, end);
      at = end;
    }
  }
  return at;
}

/** Copies a part's samples to their place in the rows of the picture. */
function lay({ width, stored, isPlanar, blockWidth }, part, strip, rows, left, plane) {
  const each = isPlanar ? 1 : stored,
    count = Math.min(blockWidth, width - left) * each;
  for (let y = 0; y < rows; y++) {
    const from = y * blockWidth * each,
      to = (y * width + left) * stored + plane;
    if (!isPlanar) strip.set(part.subarray(from, from + count), to);
    else for (let i = 0; i < count; i++) strip[to + i * stored] = part[from + i];
  }
}

/** Returns a row as `Planes` takes it: white at the top, colors of the palette, alpha not premultiplied. */
function finished(page, row) {
  const { bits, photometric, stored, colors } = page,
    wanted = channelsOf(page),
    white = (1 << bits) - 1;
  if (photometric === PALETTE) return fromPalette(page, row);
  const scale = bits < 8 ? 255 / white : 1,
    result = new row.constructor((row.length / stored) * wanted);
  const round = bits === 8 ? Math.floor : Math.round; // as Python has it at either depth
  for (let i = 0, at = 0; i < row.length; i += stored, at += wanted) {
    for (let c = 0; c < wanted; c++) {
      const value = row[i + c] * scale;
      result[at + c] = photometric === WHITE_IS_ZERO && c === 0 ? white * scale - value : value;
    }
    const alpha = row[i + stored - 1];
    if (page.extra !== PREMULTIPLIED || wanted === colors) continue;
    for (let c = 0; c < colors; c++) result[at + c] = alpha && Math.min(round((result[at + c] * white) / alpha), white);
  }
  return result;
}

function fromPalette({ palette, bits }, row) {
  const size = 1 << bits;
  const result = new Uint8Array(3 * row.length);
  for (let i = 0; i < row.length; i++) for (let c = 0; c < 3; c++) result[3 * i + c] = palette[c * size + row[i]] >> 8;
  return result;
}

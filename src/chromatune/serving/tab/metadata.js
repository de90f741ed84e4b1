// What a photo's file says beside its pixels: size, EXIF, profile, resolution and XMP, read from and put into files.
// Places are checked before they are read, and nothing is copied from a file before its length is known.

const TAG_ORIENTATION = 274,
  TAG_EXIF = 34665,
  TAG_GPS = 34853;
const TAG_MAKER_NOTE = 37500,
  TAG_COLOR_SPACE = 40961,
  TAG_INTEROPERABILITY = 40965;
const TAG_WIDTH = 40962,
  TAG_HEIGHT = 40963;
const TAG_X_RESOLUTION = 282,
  TAG_Y_RESOLUTION = 283,
  TAG_RESOLUTION_UNIT = 296;
// As in images/metadata.py: all else in the first directory is about the old file's pixels, or its thumbnail
const TAGS_FOR_RESULTS = [269, 270, 271, 272, 285, 305, 306, 315, 316, 18246, 33432, 40091, 40092, 40093, 40094, 40095];
const LONGEST_EXIF = 65_000; // bytes; a JPEG holds EXIF in one segment of 64 KiB
const LONGEST_SEGMENT = 65_533;
const BYTES_OF_TYPE = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4];
const TYPE_SHORT = 3,
  TYPE_LONG = 4;
const MOST_SEGMENTS = 10_000;
const EXIF_START = "Exif\0\0",
  XMP_START = "http://ns.adobe.com/xap/1.0/\0",
  ICC_START = "ICC_PROFILE\0";
const ORIENTATION_IN_XMP = [/(tiff:Orientation\s*=\s*["'])\d(?=["'])/g, /(<tiff:Orientation>\s*)\d(?=\s*<\/)/g];
const PROFILE_IN_XMP = [/(photoshop:ICCProfile\s*=\s*["'])[^"'<>]*(?=["'])/g, /(<photoshop:ICCProfile>)[^<>]*(?=<\/)/g];

export function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Returns bytes as text, a letter each: for comparing with signatures. */
export function latin1(bytes, start = 0, end = bytes.length) {
  return String.fromCharCode(...bytes.subarray(start, end));
}

function bytesOf(text) {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

export function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

/**
 * Returns what a JPEG's segments say: {width, height, components, progressive, exif, icc, xmp, dpi}, and `plain`, the
 * file with its EXIF hidden: browsers turn pictures by it, and do not leave it when they are asked to.
 */
export function readJpeg(bytes) {
  const view = viewOf(bytes),
    found = { plain: bytes },
    profile = [];
  let place = 2;
  for (let count = 0; count < MOST_SEGMENTS && place + 4 <= bytes.length; count++) {
    if (bytes[place] !== 0xff || bytes[place + 1] === 0xff) {
      place++;
      continue;
    }
    const marker = bytes[place + 1],
      length = view.getUint16(place + 2);
    if (marker === 0xda) break;
    const segment = bytes.subarray(place + 4, place + 2 + length),
      start = latin1(segment, 0, 29);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker) && segment.length > 5) {
      Object.assign(found, { height: view.getUint16(place + 5), width: view.getUint16(place + 7) });
      Object.assign(found, { components: segment[5], progressive: [0xc2, 0xc6, 0xca, 0xce].includes(marker) });
    } else if (marker === 0xe0 && start.startsWith("JFIF\0") && segment.length >= 12) {
      const factor = { 1: 1, 2: 2.54 }[segment[7]];
      if (factor) found.dpi = sensible(view.getUint16(place + 12) * factor, view.getUint16(place + 14) * factor);
    } else if (marker === 0xe1 && start.startsWith(EXIF_START)) {
      found.exif ??= readExif(segment.subarray(6));
      if (found.plain === bytes) found.plain = bytes.slice();
      found.plain[place + 4] = 0x2d;
    } else if (marker === 0xe1 && start.startsWith(XMP_START)) found.xmp = segment.subarray(29);
    else if (marker === 0xe2 && start.startsWith(ICC_START)) profile[segment[12]] = segment.subarray(14);
    place += 2 + Math.max(2, length);
  }
  if (profile.length) found.icc = joined(profile.filter(Boolean));
  return found;
}

/** Returns what a WebP's chunks say, as `readJpeg`; its animations count as their first picture. */
export function readWebp(bytes) {
  const view = viewOf(bytes),
    found = { plain: bytes };
  for (let place = 12; place + 18 <= bytes.length;) {
    const kind = latin1(bytes, place, place + 4),
      length = view.getUint32(place + 4, true),
      start = place + 8;
    const content = bytes.subarray(start, start + length);
    if (kind === "VP8X") {
      found.width = 1 + (view.getUint32(start + 4, true) & 0xffffff);
      found.height = 1 + (view.getUint32(start + 6, true) >>> 8);
      found.hasAlpha = Boolean(bytes[start] & 16);
    } else if (kind === "VP8L" && !found.width) {
      const bits = view.getUint32(start + 1, true);
      Object.assign(found, { width: 1 + (bits & 0x3fff), height: 1 + ((bits >> 14) & 0x3fff) });
      found.hasAlpha = Boolean((bits >> 28) & 1);
    } else if (kind === "VP8 " && !found.width) {
      found.width = view.getUint16(start + 6, true) & 0x3fff;
      found.height = view.getUint16(start + 8, true) & 0x3fff;
    } else if (kind === "EXIF") {
      found.exif ??= readExif(latin1(content, 0, 6) === EXIF_START ? content.subarray(6) : content);
      if (found.plain === bytes) found.plain = bytes.slice();
      found.plain[place] = 0x2d;
    } else if (kind === "XMP ") found.xmp = content;
    else if (kind === "ICCP") found.icc = content;
    place = start + length + (length % 2);
  }
  return found;
}

/**
 * Returns a directory of a TIFF or EXIF block: Map tag → {type, count, data}, data as it lies in the file, and `next`,
 * the place of the following directory. Entries that reach beyond the block are left out.
 */
export function readDirectory(bytes, place, little) {
  const view = viewOf(bytes),
    entries = new Map();
  if (!(place >= 8 && place + 2 <= bytes.length)) return { entries, next: 0 };
  const end = place + 2 + 12 * view.getUint16(place, little);
  for (let at = place + 2; at < end && at + 12 <= bytes.length; at += 12) {
    const type = view.getUint16(at + 2, little),
      count = view.getUint32(at + 4, little);
    const length = (BYTES_OF_TYPE[type] ?? 0) * count;
    const start = length > 4 ? view.getUint32(at + 8, little) : at + 8;
    if (!length || start + length > bytes.length) continue;
    entries.set(view.getUint16(at, little), { type, count, data: bytes.subarray(start, start + length) });
  }
  return { entries, next: end + 4 <= bytes.length ? view.getUint32(end, little) : 0 };
}

/** Returns the numbers of a directory's entry, or undefined where it has none of that tag. */
export function numbersOf(entries, tag, little) {
  const entry = entries.get(tag);
  if (!entry) return undefined;
  const view = viewOf(entry.data),
    size = BYTES_OF_TYPE[entry.type];
  const one = {
    1: (at) => view.getUint8(at),
    3: (at) => view.getUint16(at, little),
    4: (at) => view.getUint32(at, little),
    5: (at) => view.getUint32(at, little) / view.getUint32(at + 4, little),
  }[entry.type];
  return one && Array.from({ length: entry.count }, (_, i) => one(i * size));
}

/** Returns {little, first, details, gps}: directories of an EXIF block without its prefix; undefined if damaged. */
export function readExif(block) {
  const order = latin1(block, 0, 4);
  if (order !== "II*\0" && order !== "MM\0*") return undefined;
  const little = order[0] === "I";
  if (block.length < 14) return undefined;
  return exifOf(block, viewOf(block).getUint32(4, little), little);
}

/** Returns the same of a TIFF's directory. */
export function exifOf(bytes, place, little) {
  const first = readDirectory(bytes, place, little).entries;
  const [details, gps] = [TAG_EXIF, TAG_GPS].map((tag) => {
    const at = numbersOf(first, tag, little)?.[0];
    return at === undefined ? new Map() : readDirectory(bytes, at, little).entries;
  });
  return { little, first, details, gps };
}

/** Returns the orientation 1..8 of EXIF, or of XMP where EXIF has none. */
export function orientationOf(exif, xmp) {
  const inXmp = xmp && latin1(xmp.subarray(0, 1 << 16)).match(/tiff:Orientation(?:="|>)([0-9])/)?.[1];
  const inExif = exif && numbersOf(exif.first, TAG_ORIENTATION, exif.little)?.[0];
  const value = exif?.first.has(TAG_ORIENTATION) ? inExif : Number(inXmp);
  return value >= 1 && value <= 8 ? value : 1;
}

/** Returns [horizontal, vertical] pixels per inch of EXIF or TIFF tags, or undefined. */
export function dpiOf(exif) {
  if (!exif) return undefined;
  const one = (tag) => numbersOf(exif.first, tag, exif.little)?.[0];
  const factor = { 2: 1, 3: 2.54 }[one(TAG_RESOLUTION_UNIT) ?? 2],
    horizontal = one(TAG_X_RESOLUTION);
  const dpi = sensible(horizontal, one(TAG_Y_RESOLUTION) ?? horizontal);
  return factor && dpi?.map((value) => value * factor);
}

export function sensible(...dpi) {
  return dpi.every((value) => value > 0 && value < 1e6) ? dpi : undefined;
}

/**
 * Returns the EXIF block for results, without prefix: orientation 1, no thumbnail, sizes true; null if there was none.
 *
 * @param exif of `readExif`, or undefined.
 * @param {boolean} isSrgb the colors went through a profile and are sRGB now.
 */
export function exifForResults(exif, width, height, isSrgb) {
  if (!exif) return null;
  const { little } = exif;
  const number = (type, value) => {
    const data = new Uint8Array(BYTES_OF_TYPE[type]);
    if (type === TYPE_SHORT) viewOf(data).setUint16(0, value, little);
    else viewOf(data).setUint32(0, value, little);
    return { type, count: 1, data };
  };
  const details = new Map(exif.details);
  details.delete(TAG_INTEROPERABILITY); // names Adobe RGB at times
  if (details.has(TAG_WIDTH)) details.set(TAG_WIDTH, number(TYPE_LONG, width));
  if (details.has(TAG_HEIGHT)) details.set(TAG_HEIGHT, number(TYPE_LONG, height));
  if (isSrgb && details.has(TAG_COLOR_SPACE)) details.set(TAG_COLOR_SPACE, number(TYPE_SHORT, 1));
  const first = new Map(TAGS_FOR_RESULTS.filter((tag) => exif.first.has(tag)).map((tag) => [tag, exif.first.get(tag)]));
  if (!first.size && !details.size && !exif.gps.size) return null;
  first.set(TAG_ORIENTATION, number(TYPE_SHORT, 1));
  const pack = () => packed(first, details, exif.gps, little, (value) => number(TYPE_LONG, value));
  let block = pack();
  if (!block && details.delete(TAG_MAKER_NOTE)) block = pack();
  return block;
}

function packed(first, details, gps, little, long) {
  const others = [
    [TAG_EXIF, details],
    [TAG_GPS, gps],
  ].filter(([, entries]) => entries.size);
  for (const [tag] of others) first.set(tag, long(0));
  let place = 8 + sizeOf(first);
  for (const [tag, entries] of others) {
    first.set(tag, long(place));
    place += sizeOf(entries);
  }
  if (place > LONGEST_EXIF) return null;
  const block = new Uint8Array(place),
    view = viewOf(block);
  block.set(bytesOf(little ? "II*\0" : "MM\0*"));
  view.setUint32(4, 8, little);
  place = 8;
  for (const entries of [first, ...others.map(([, each]) => each)]) {
    let data = place + 6 + 12 * entries.size;
    view.setUint16(place, entries.size, little);
    [...entries]
      .sort(([one], [other]) => one - other)
      .forEach(([tag, entry], i) => {
        const at = place + 2 + 12 * i;
        view.setUint16(at, tag, little);
        view.setUint16(at + 2, entry.type, little);
        view.setUint32(at + 4, entry.count, little);
        if (entry.data.length <= 4) return block.set(entry.data, at + 8);
        view.setUint32(at + 8, data, little);
        block.set(entry.data, data);
        data += entry.data.length + (entry.data.length % 2);
      });
    place += sizeOf(entries);
  }
  return block;
}

/** Bytes of a directory with its data, each at an even place. */
function sizeOf(entries) {
  let size = 6 + 12 * entries.size;
  for (const { data } of entries.values()) size += data.length > 4 ? data.length + (data.length % 2) : 0;
  return size;
}

/** Returns an XMP packet as text with what is no longer true put right; null if it is none. */
export function uprightXmp(bytes, isSrgb) {
  if (!bytes) return null;
  let text = new TextDecoder().decode(bytes).replace(/\0+$/, "");
  if (!text.includes("RDF")) return null;
  for (const pattern of ORIENTATION_IN_XMP) text = text.replace(pattern, "$11");
  if (isSrgb) for (const pattern of PROFILE_IN_XMP) text = text.replace(pattern, "$1sRGB IEC61966-2.1");
  return text;
}

/** Returns a JPEG of the browser with EXIF, XMP, profile and resolution, and nothing else beside its pixels. */
export function jpegWith(bytes, { exif, xmp, icc, dpi }) {
  const view = viewOf(bytes),
    density = dpi?.map((value) => Math.min(Math.round(value), 65535)) ?? [1, 1];
  const head = bytesOf("JFIF\0\x01\x01\0\0\0\0\0\0\0");
  head[7] = dpi ? 1 : 0;
  viewOf(head).setUint16(8, density[0]);
  viewOf(head).setUint16(10, density[1]);
  const parts = [bytes.subarray(0, 2), segmentOf(0xe0, head)];
  if (exif) parts.push(segmentOf(0xe1, bytesOf(EXIF_START), exif));
  const packet = new TextEncoder().encode(xmp ?? "");
  if (packet.length && packet.length <= LONGEST_SEGMENT - 29) parts.push(segmentOf(0xe1, bytesOf(XMP_START), packet));
  const piece = LONGEST_SEGMENT - 14,
    count = Math.ceil((icc?.length ?? 0) / piece);
  for (let i = 0; i < count; i++) {
    const number = Uint8Array.of(i + 1, count);
    parts.push(segmentOf(0xe2, bytesOf(ICC_START), number, icc.subarray(i * piece, (i + 1) * piece)));
  }
  let place = 2;
  while (bytes[place + 1] >= 0xe0 && bytes[place + 1] <= 0xef) place += 2 + view.getUint16(place + 2);
  return joined([...parts, bytes.subarray(place)]);
}

function segmentOf(marker, ...contents) {
  const length = contents.reduce((sum, content) => sum + content.length, 2);
  return joined([Uint8Array.of(0xff, marker, length >> 8, length & 255), ...contents]);
}

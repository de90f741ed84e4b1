// Files ⇒ photos, upright and in sRGB, and results ⇒ files; as images/reading.py and images/writing.py have it.
// The browser decodes JPEG, WebP, AVIF, GIF and BMP; PNG and TIFF are read here, for a canvas holds 8 bits only.

import * as metadata from "./metadata.js";
import { Planes, Refusal, checkSize, damaged } from "./planes.js";
import * as png from "./png.js";
import { convert, gammaTable, readProfile, srgbProfile } from "./profiles.js";
import * as tiff from "./tiff.js";

export { Refusal };

const { latin1, viewOf } = metadata;
const START = 32; // bytes that a file's kind is told by
const MOST_PROFILE = 16 << 20; // bytes
const STRIP_PIXELS = 1 << 21; // that are taken out of a picture, or put into one, at once
const LARGEST_MISSING_SHARE = 0.1; // of a JPEG's rows
const FILL = 128; // what a decoder gives for rows that are missing
const LONGEST_JPEG_SIDE = 65_500,
  JPEG_QUALITY = 0.95,
  SCREEN_QUALITY = 0.92;
const LAYER_LONG_SIDE = 1024;
const MIME = { JPEG: "image/jpeg", WEBP: "image/webp", AVIF: "image/avif", GIF: "image/gif", BMP: "image/bmp" };
const ACCEPTED = "accepted: JPEG, PNG, TIFF, WebP, AVIF, GIF, BMP";
const HEIF_BRANDS = ["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"];

/**
 * Reads a photo at its full size and depth, upright, in sRGB.
 *
 * @param {Uint8Array} bytes of the file.
 * @param {string} name for messages.
 * @param {number} maxPixels larger pictures are refused before they are decoded.
 * @returns {Promise<{name, width, height, gray, rgb, alpha, maxValue, format, icc, exif, dpi, xmp, warnings}>} gray
 *   (height x width) Uint8Array or Uint16Array, Rec.601 luma, or the gray itself where every pixel is neutral, and rgb,
 *   interleaved, is null then; alpha of the same type, or null; maxValue 255 or 65535; icc an sRGB profile where the
 *   file had a usable one, else null; exif a block without "Exif\0\0", or null; dpi [across, down] or null; xmp a text
 *   or null; warnings a line each.
 * @throws {Refusal} one line that begins with the name.
 */
export async function readPhoto(bytes, name, maxPixels) {
  try {
    return { name, ...(await read(bytes, maxPixels)) };
  } catch (error) {
    const hasNoRoom = error instanceof RangeError && /alloc|length/i.test(error.message);
    const other = hasNoRoom ? new Refusal("not enough memory for this picture; make it smaller") : damaged();
    const refusal = error instanceof Refusal ? error : other;
    throw new Refusal(`${name}: ${refusal.message}`, refusal.status);
  }
}

async function read(bytes, maxPixels) {
  const format = formatOf(bytes),
    head = await headOf(format, bytes);
  checkSize(head.width, head.height, maxPixels);
  const warnings = [],
    orientation = metadata.orientationOf(head.exif, head.xmp);
  const profile = profileOf(head, warnings);
  const decode = { PNG: png.decodePng, TIFF: tiff.decodeTiff }[format];
  const planes = decode
    ? await decode(head, maxPixels, orientation, changeOf(head, profile))
    : await decodeInBrowser(format, head, orientation, profile, warnings);
  const isSrgb = profile !== null,
    dpi = head.dpi ?? metadata.dpiOf(head.exif) ?? null;
  return {
    ...planes,
    format,
    icc: isSrgb ? srgbProfile() : null,
    exif: metadata.exifForResults(head.exif, planes.width, planes.height, isSrgb),
    dpi: dpi && orientation >= 5 ? dpi.toReversed() : dpi,
    xmp: metadata.uprightXmp(head.xmp, isSrgb),
    warnings,
  };
}

function formatOf(bytes) {
  const start = latin1(bytes, 0, START),
    brand = start.slice(4, 8) === "ftyp" ? start.slice(8, 12) : "";
  const begins = (...signatures) => signatures.some((each) => start.startsWith(each));
  if (begins("\xff\xd8\xff")) return "JPEG";
  if (begins(png.PNG_SIGNATURE)) return "PNG";
  if (begins("II*\0", "MM\0*", "II+\0", "MM\0+")) return "TIFF";
  if (begins("RIFF") && start.slice(8, 12) === "WEBP") return "WEBP";
  if (begins("GIF8")) return "GIF";
  if (begins("BM")) return "BMP";
  if (brand === "avif" || brand === "avis") return "AVIF";
  const others = { "HEIC photo": HEIF_BRANDS.includes(brand), "JPEG 2000": begins("\0\0\0\x0cjP", "\xff\x4f\xff\x51") };
  others["PNM picture"] = /^P[1-7Ff][\s#]/.test(start);
  others["camera's raw file"] = begins("FUJIFILMCCD-RAW", "IIRO", "IIRS", "MMOR", "IIU\0", "FOVb", "\0MRM");
  const known = Object.keys(others).find((kind) => others[kind]);
  if (!known) throw new Refusal(`not a picture in a known format; ${ACCEPTED}`, 415);
  const advice = "use the installed program, or save it as PNG or JPEG";
  throw new Refusal(`a ${known} cannot be read in the browser; ${advice}`, 415);
}

/** Returns what a file's header says; `channels` are those of the rows that come of it. */
async function headOf(format, bytes) {
  const view = viewOf(bytes);
  if (format === "PNG") return withChannels(await png.readPngHead(bytes), png.channelsOf);
  if (format === "TIFF") return withChannels(tiff.readTiffHead(bytes), tiff.channelsOf);
  if (format === "JPEG") return withChannels(metadata.readJpeg(bytes), ({ components }) => (components === 1 ? 1 : 3));
  if (format === "WEBP") return withChannels(metadata.readWebp(bytes), ({ hasAlpha }) => (hasAlpha ? 4 : 3));
  if (format === "GIF") {
    return { plain: bytes, width: view.getUint16(6, true), height: view.getUint16(8, true), channels: 4 };
  }
  if (format === "BMP") {
    return bmpHead(bytes, view);
  }
  return avifHead(bytes);
}

function bmpHead(bytes, view) {
  const head = { plain: bytes, channels: 3 };
  if (view.getUint32(14, true) === 12) {
    return { ...head, width: view.getUint16(18, true), height: view.getUint16(20, true) };
  }
  const dpi = metadata.sensible(...[38, 42].map((at) => view.getInt32(at, true) * 0.0254));
  return { ...head, width: view.getInt32(18, true), height: Math.abs(view.getInt32(22, true)), dpi };
}

function withChannels(head, channelsOf) {
  return { ...head, channels: channelsOf(head) };
}

/** The largest of the sizes that an AVIF's header gives (ISO/IEC 23008-12, 6.5.3), and its depth. */
function avifHead(bytes) {
  const start = latin1Long(bytes.subarray(0, 1 << 20)),
    view = viewOf(bytes),
    head = { plain: bytes, channels: 4 };
  for (let at = start.indexOf("ispe"); at >= 0 && at + 16 <= bytes.length; at = start.indexOf("ispe", at + 4)) {
    const [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (!head.width || width * height > head.width * head.height) Object.assign(head, { width, height });
  }
  const configuration = start.indexOf("av1C");
  head.isDeep = configuration >= 0 && Boolean(bytes[configuration + 6] & 64);
  return head;
}

function latin1Long(bytes) {
  return new TextDecoder("latin1").decode(bytes);
}

/** Returns what the profile does, {kind: "browser"} where the browser is to convert; null without a usable one. */
function profileOf(head, warnings) {
  const { icc, components = 3, channels, plain } = head;
  if (head.hasOddProfile || icc?.length > MOST_PROFILE) {
    warnings.push(`its color profile is damaged, or larger than ${MOST_PROFILE >> 20} MB, and is ignored`);
    return null;
  }
  if (!icc?.length) return null;
  const found = components === 4 ? null : readProfile(icc, channels < 3);
  // Tables, and inks, are the browser's: relative colorimetric like Python's, but without its black point compensation
  const space = icc.length > 132 ? latin1(icc, 16, 20) : "";
  const own = components === 4 ? "CMYK" : channels < 3 ? "GRAY" : "RGB ";
  if (!found && plain && space === own) return { kind: "browser" };
  if (!found) {
    warnings.push("its color profile is damaged, for another kind of picture, or works by tables, and is ignored");
  }
  return found;
}

/** Returns what is to be done to each row of samples, or null. */
function changeOf({ channels, gamma, isSrgb, bits }, profile) {
  if (profile && !["same", "browser"].includes(profile.kind)) return (row) => convert(row, channels, profile);
  const table = gamma && !profile && !isSrgb ? gammaTable(gamma, bits === 16 ? 65535 : 255) : null;
  if (!table) return null;
  const colors = channels - 1 + (channels % 2);
  return (row) => {
    for (let i = 0; i < row.length; i += channels) for (let c = 0; c < colors; c++) row[i + c] = table[row[i + c]];
  };
}

async function decodeInBrowser(format, head, orientation, profile, warnings) {
  if (head.isDeep) warnings.push("its 10 or 12 bits are read at 8 bits, because browsers give no more");
  const bitmap = await bitmapOf(format, head, profile, warnings);
  const { width, height } = bitmap;
  const planes = new Planes(width, height, head.channels, 255, orientation, changeOf(head, profile));
  const row = new Uint8Array(width * head.channels);
  let isOpaque = true,
    filled = 0;
  try {
    await forStrips(bitmap, head.channels === 4, (pixels, y) => {
      isOpaque = narrowed(pixels, row, head.channels) && isOpaque;
      if (head.isCut) filled = row.every((value) => value === FILL) ? filled + 1 : 0;
      planes.put(y, row);
    });
  } finally {
    bitmap.close();
  }
  if (head.isCut) {
    if (filled > LARGEST_MISSING_SHARE * height) throw tooLittleLeft();
    const rows = `about ${Math.max(filled, 1)} of ${height} rows`;
    warnings.push(`incomplete file: the lowest part (${rows}) is missing; copy it again if you can`);
  }
  const photo = planes.finish();
  return isOpaque && format !== "WEBP" ? { ...photo, alpha: null } : photo;
}

function tooLittleLeft() {
  return new Refusal("incomplete file, with too little left to show; copy or download it again");
}

/** Copies RGBA into a row of 1, 3 or 4 channels; returns whether all of it is opaque. */
function narrowed(pixels, row, channels) {
  let isOpaque = true;
  for (let from = 0, to = 0; to < row.length; from += 4, to += channels) {
    for (let c = 0; c < channels; c++) row[to + c] = pixels[from + c];
    isOpaque &&= pixels[from + 3] === 255;
  }
  return isOpaque;
}

/** A bitmap of the file, decoded once; of a JPEG that lacks its end too, which `head.isCut` says then. */
async function bitmapOf(format, head, profile, warnings) {
  const options = { colorSpaceConversion: profile?.kind === "browser" ? "default" : "none", premultiplyAlpha: "none" };
  const open = (...parts) => createImageBitmap(new Blob(parts, { type: MIME[format] }), options);
  try {
    return await open(head.plain);
  } catch (error) {
    if (error instanceof RangeError) throw error;
    if (format !== "JPEG") throw damaged();
  }
  // Coarse passes of a progressive one may be all there is
  if (head.progressive) throw tooLittleLeft();
  head.isCut = true;
  return open(head.plain, Uint8Array.of(0xff, 0xd9)).catch(() => {
    throw damaged();
  });
}

/**
 * Calls `take(pixels, y)` with the RGBA of each row. A canvas multiplies colors by alpha, and loses them; a video frame
 * keeps them, where the browser has it. Strips bound what is held beside the bitmap.
 */
async function forStrips(bitmap, hasAlpha, take) {
  const { width, height } = bitmap,
    rows = Math.max(1, Math.floor(STRIP_PIXELS / width));
  const frame = hasAlpha ? frameOf(bitmap) : null;
  const context = frame ? null : contextOf(width, Math.min(rows, height));
  try {
    for (let top = 0; top < height; top += rows) {
      const count = Math.min(rows, height - top);
      const pixels = frame ? await pixelsOf(frame, top, count) : drawn(context, bitmap, top, count);
      for (let y = 0; y < count; y++) take(pixels.subarray(4 * y * width, 4 * (y + 1) * width), top + y);
    }
  } finally {
    frame?.close();
  }
}

function frameOf(bitmap) {
  try {
    const frame = new VideoFrame(bitmap, { timestamp: 0, alpha: "keep" });
    if (["RGBA", "BGRA"].includes(frame.format)) return frame;
    frame.close();
  } catch {
    // this browser has none
  }
  return null;
}

async function pixelsOf(frame, top, rows) {
  const width = frame.codedWidth,
    pixels = new Uint8Array(4 * width * rows);
  const rect = { x: 0, y: top, width, height: rows };
  await frame.copyTo(pixels, { rect, layout: [{ offset: 0, stride: 4 * width }] });
  if (frame.format === "BGRA") {
    for (let i = 0; i < pixels.length; i += 4) [pixels[i], pixels[i + 2]] = [pixels[i + 2], pixels[i]];
  }
  return pixels;
}

function drawn(context, bitmap, top, rows) {
  context.clearRect(0, 0, bitmap.width, rows);
  context.drawImage(bitmap, 0, -top);
  return context.getImageData(0, 0, bitmap.width, rows).data;
}

function contextOf(width, height, settings = { willReadFrequently: true }) {
  const context = new OffscreenCanvas(width, height).getContext("2d", settings);
  if (!context) throw new Refusal("the browser has no room for this picture; make it smaller");
  return context;
}

/**
 * Writes a result in the photo's own format where that is JPEG and holds it, else as PNG.
 *
 * @param {Uint8Array|Uint16Array} rgb interleaved sRGB, of the photo's size; of 16 bits where the photo is.
 * @param photo of `readPhoto`.
 * @param {string} provenance an XMP packet for the result; "" keeps the photo's own.
 * @returns {Promise<{bytes: Uint8Array, suffix: ".jpg"|".png", warnings: string[]}>}
 */
export async function writePhoto(rgb, photo, provenance = "") {
  const { width, height, alpha, format, maxValue, icc, exif, dpi } = photo,
    warnings = [];
  const extra = { icc, exif, dpi, xmp: provenance || photo.xmp };
  if (format === "JPEG" && !alpha && maxValue === 255 && Math.max(width, height) <= LONGEST_JPEG_SIDE) {
    try {
      const blob = await jpegOf(rgb, width, height, JPEG_QUALITY);
      return { bytes: metadata.jpegWith(new Uint8Array(await blob.arrayBuffer()), extra), suffix: ".jpg", warnings };
    } catch {
      warnings.push("the browser cannot write a JPEG of this size; this is a PNG");
    }
  }
  if (format === "TIFF" || format === "WEBP") {
    warnings.push(`results of a ${format} are PNGs here; the installed program writes ${format}`);
  }
  return { bytes: await png.encodePng(rgb, alpha, width, height, extra), suffix: ".png", warnings };
}

async function jpegOf(rgb, width, height, quality) {
  const context = contextOf(width, height, { alpha: false }),
    rows = Math.max(1, Math.floor(STRIP_PIXELS / width));
  for (let top = 0; top < height; top += rows) {
    const image = new ImageData(width, Math.min(rows, height - top)),
      { data } = image;
    for (let to = 0, from = 3 * top * width; to < data.length; to += 4, from += 3) {
      data[to] = rgb[from];
      data[to + 1] = rgb[from + 1];
      data[to + 2] = rgb[from + 2];
      data[to + 3] = 255;
    }
    context.putImageData(image, 0, top);
  }
  const blob = await context.canvas.convertToBlob({ type: "image/jpeg", quality });
  if (blob.type !== "image/jpeg") throw new TypeError("no JPEG");
  return blob;
}

/**
 * Returns a picture for the screen: a JPEG, or a PNG where it has transparency.
 *
 * @param {Uint8Array} rgb interleaved.
 * @param {Uint8Array|null} alpha
 * @returns {Promise<Blob>}
 */
export async function screenImage(rgb, width, height, alpha = null) {
  if (!alpha) return jpegOf(rgb, width, height, SCREEN_QUALITY);
  return new Blob([await png.encodePng(rgb, alpha, width, height)], { type: "image/png" });
}

/**
 * Returns the picture of a layer of hints.
 *
 * @param {string} base64 an RGBA PNG.
 * @param {string} name for messages.
 * @returns {Promise<{rgba: Float32Array, width: number, height: number}>} (height x width x 4), 0..1, not premultiplied.
 * @throws {Refusal} it is no such picture.
 */
export async function decodeLayer(base64, name = "the layer") {
  const bytes = Uint8Array.from(atob(base64.replace(/\s/g, "")), (letter) => letter.charCodeAt(0));
  const photo = await readPhoto(bytes, name, LAYER_LONG_SIDE ** 2);
  const { width, height, gray, rgb, alpha, maxValue } = photo,
    rgba = new Float32Array(4 * width * height);
  if (!alpha) throw new Refusal(`${name} has no transparency; paint hints on a transparent layer, and save that alone`);
  if (!alpha.some(Boolean)) {
    throw new Refusal(`${name}: nothing is painted on it, every pixel is transparent; paint, or leave it out`);
  }
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) rgba[4 * i + c] = (rgb ? rgb[3 * i + c] : gray[i]) / maxValue;
    rgba[4 * i + 3] = alpha[i] / maxValue;
  }
  return { rgba, width, height };
}

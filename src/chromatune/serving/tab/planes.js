// Rows of a file's samples, as they come ⇒ the planes of an upright photo: gray, colors, alpha.

/** Refuses a file: one line, and the status that the server would answer with. */
export class Refusal extends Error {
  constructor(line, status = 400) {
    super(line);
    this.status = status;
  }
}

export function damaged(reason) {
  const why = reason ? ` (${reason})` : "";
  return new Refusal(`damaged or incomplete${why}; copy it again, or save it anew in an image editor`);
}

/** Checks a picture's size before anything is allocated for it. */
export function checkSize(width, height, maxPixels) {
  if (!(width >= 1 && height >= 1)) {
    throw new Refusal(`the picture has no pixels (${width} x ${height}); choose another file`);
  }
  if (width * height > maxPixels) {
    throw new Refusal(
      `${width} x ${height} = ${((width * height) / 1e6).toFixed(1)} million pixels, and the limit is ` +
        `${(maxPixels / 1e6).toFixed(1)} million; make it smaller, or use the installed program`,
    );
  }
}

/** The planes of a photo, filled row by row. Width and height are the file's; those of the photo are `size`. */
export class Planes {
  /**
   * @param {number} channels of the rows: gray, gray and alpha, RGB, RGB and alpha.
   * @param {number} maxValue 255 or 65535.
   * @param {number} orientation 1..8, of EXIF.
   * @param change what is to be done to each row before, in place: a function of samples.
   */
  constructor(width, height, channels, maxValue, orientation = 1, change = null) {
    const Samples = maxValue === 255 ? Uint8Array : Uint16Array,
      turned = orientation >= 5;
    Object.assign(this, { channels, maxValue, change, neutral: true });
    this.size = turned ? [height, width] : [width, height];
    this.colors = channels > 2 ? 3 : 1;
    this.samples = new Samples(width * height * this.colors);
    this.alpha = channels % 2 ? null : new Samples(width * height);
    // Where a pixel goes: first + x * across + y * down
    const backward = { x: [2, 3, 7, 8].includes(orientation), y: [3, 4, 6, 7].includes(orientation) };
    const [across, down] = turned ? [height, 1] : [1, width];
    this.across = backward.x ? -across : across;
    this.down = backward.y ? -down : down;
    this.first = (backward.x ? (width - 1) * across : 0) + (backward.y ? (height - 1) * down : 0);
  }

  /** Takes a row of the file: interleaved samples of the pixels x, x + step, ... */
  put(y, row, x = 0, step = 1) {
    this.change?.(row);
    const { samples, alpha, colors, channels } = this,
      by = step * this.across;
    let place = this.first + x * this.across + y * this.down;
    for (let i = 0; i < row.length; i += channels, place += by) {
      if (alpha) alpha[place] = row[i + channels - 1];
      if (colors === 1) {
        samples[place] = row[i];
        continue;
      }
      const r = row[i],
        g = row[i + 1],
        b = row[i + 2],
        at = 3 * place;
      samples[at] = r;
      samples[at + 1] = g;
      samples[at + 2] = b;
      if (r !== g || g !== b) this.neutral = false;
    }
  }

  /** Returns {width, height, gray, rgb, alpha, maxValue}; Rec.601 luma, or the gray itself where no pixel has color. */
  finish() {
    const {
      samples,
      alpha,
      maxValue,
      size: [width, height],
    } = this;
    const photo = { width, height, gray: samples, rgb: null, alpha, maxValue };
    if (this.colors === 1) return photo;
    const gray = (photo.gray = new samples.constructor(width * height));
    for (let i = 0, at = 0; i < gray.length; i++, at += 3) {
      gray[i] = (299 * samples[at] + 587 * samples[at + 1] + 114 * samples[at + 2] + 500) / 1000;
    }
    if (!this.neutral) photo.rgb = samples;
    return photo;
  }
}

/** Bytes of a zlib stream, read as far as they are asked for: a stream that goes on without end does no harm. */
export class Inflated {
  #reader;
  #piece = new Uint8Array(0);

  /** @param {Uint8Array[]} parts of the stream. */
  constructor(parts) {
    this.#reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  }

  /** Fills an array of bytes; returns how many there were, fewer at the end of the stream. */
  async read(into) {
    let place = 0;
    while (place < into.length) {
      if (!this.#piece.length) {
        const { done, value } = await this.#reader.read().catch((error) => {
          throw damaged(String(error?.message ?? error).slice(0, 120));
        });
        if (done) break;
        this.#piece = value;
      }
      const some = this.#piece.subarray(0, into.length - place);
      into.set(some, place);
      place += some.length;
      this.#piece = this.#piece.subarray(some.length);
    }
    return place;
  }

  /** Returns all of a small stream, or null where it has more than `most` bytes, or is damaged. */
  static async whole(bytes, most) {
    const stream = new Inflated([bytes]),
      pieces = [];
    try {
      for (let length = 0; ;) {
        const piece = new Uint8Array(Math.min(1 << 16, most + 1));
        const count = await stream.read(piece);
        pieces.push(piece.subarray(0, count));
        length += count;
        if (length > most) return null;
        if (count < piece.length) return new Uint8Array(await new Blob(pieces).arrayBuffer());
      }
    } catch {
      return null;
    } finally {
      stream.close();
    }
  }

  close() {
    this.#reader.cancel().catch(() => {});
  }
}

/** Returns the samples of 1, 2 or 4 bits in a row of bytes, a byte each. */
export function unpacked(bytes, bits, count) {
  const row = new Uint8Array(count),
    perByte = 8 / bits,
    mask = (1 << bits) - 1;
  for (let i = 0; i < count; i++) row[i] = (bytes[Math.floor(i / perByte)] >> (8 - bits * ((i % perByte) + 1))) & mask;
  return row;
}

/** Returns 16-bit samples that lie in a file. */
export function words(view, count, little) {
  const row = new Uint16Array(count);
  for (let i = 0; i < count; i++) row[i] = view.getUint16(2 * i, little);
  return row;
}

// Scratches and dust on a small gray: where they are (`chromatune.color.restoration.find_damage`), and filled in
// (A. Telea, An Image Inpainting Technique Based on the Fast Marching Method, 2004).

import { components, mirrored101, plane, roundHalfEven } from "./image.js";

const SCRATCH_PX = 5,
  STRONG = 0.16,
  SCRATCH_WHITE = 0.78,
  SCRATCH_BLACK = 0.15;
const LONG_PX = 14,
  SPECK_PX2 = 16,
  SLENDER = 4;
const BUSY_SPECK = 0.12,
  BUSY_SCRATCH = 0.24,
  AROUND_PX = 15,
  SURE_SHARE = 0.35;
const LEAST_DAMAGED = 0.004,
  MOST_DAMAGED = 0.08;
const FILL_RADIUS = 3, // pixels round one that its value is a mean of
  FAR = 1e6, // when the front comes where it has not been
  LEAST_ALONG = 0.01;

const { fround } = Math;

/** Which pixels are damaged, and their share; null where none are. */
export function findDamage(gray) {
  const { height, width } = gray,
    scale = Math.min(height, width) / 256,
    count = height * width;
  const levels = Uint8Array.from(gray.data, (level) => roundHalfEven(level * 255));
  const ellipse = ellipseOf(Math.max(3, 2 * roundHalfEven((SCRATCH_PX * scale) / 2) + 1));
  const mask = new Uint8Array(count);
  for (const sign of [1, -1]) {
    // thin and bright, thin and dark
    const extreme = sign > 0 ? (level) => level > 255 * SCRATCH_WHITE : (level) => level < 255 * SCRATCH_BLACK;
    const flat = extremum(extremum(levels, height, width, ellipse, -sign), height, width, ellipse, sign);
    const strength = levels.map((level, i) => sign * (level - flat[i]));
    const strokes = strength.map((each) => each > (255 * STRONG) / 2);
    const sure = strength.map((each, i) => each > 255 * STRONG && extreme(levels[i]));
    markSlender(mask, strokes, sure, height, width, scale);
  }
  const share = mask.reduce((sum, each) => sum + each, 0) / count;
  return share >= LEAST_DAMAGED && share <= MOST_DAMAGED ? { mask, share } : null;
}

/** How far a filled ellipse reaches to the sides in each of its rows, as OpenCV draws it. */
function ellipseOf(side) {
  const radius = side >> 1;
  return Array.from({ length: 2 * radius + 1 }, (_, i) => roundHalfEven(Math.sqrt(radius ** 2 - (i - radius) ** 2)));
}

/** The largest (sign 1) or smallest (-1) value under a kernel of such rows; what lies outside does not count. */
function extremum(levels, height, width, reaches, sign) {
  const radius = reaches.length >> 1,
    found = levels.slice(),
    within = [levels]; // by how far rows reach to the sides
  const take = (target, source, from, to, off) => {
    if (sign > 0)
      for (let i = from; i < to; i++) {
        if (source[i + off] > target[i]) target[i] = source[i + off];
      }
    else for (let i = from; i < to; i++) if (source[i + off] < target[i]) target[i] = source[i + off];
  };
  for (let reach = 1; reach <= Math.min(width - 1, Math.max(...reaches)); reach++) {
    within[reach] = within[reach - 1].slice();
    for (let first = 0; first < levels.length; first += width) {
      take(within[reach], levels, first, first + width - reach, reach);
      take(within[reach], levels, first + reach, first + width, -reach);
    }
  }
  for (const [row, reach] of reaches.entries()) {
    const off = (row - radius) * width,
      source = within[Math.min(reach, within.length - 1)];
    take(found, source, Math.max(0, -off), Math.min(levels.length, levels.length - off), off);
  }
  return found;
}

/** Marks the strokes that are long and thin or small, a good part of them sure, and not amid many others. */
function markSlender(mask, strokes, sure, height, width, scale) {
  const side = 2 * roundHalfEven(AROUND_PX * scale) + 1;
  for (const pixels of components(strokes, height, width)) {
    let [top, left, bottom, right, sumX, sumY, certain] = [height, width, 0, 0, 0, 0, 0];
    for (const at of pixels) {
      const y = Math.floor(at / width),
        x = at % width;
      [top, bottom, left, right] = [Math.min(top, y), Math.max(bottom, y), Math.min(left, x), Math.max(right, x)];
      [sumX, sumY, certain] = [sumX + x, sumY + y, certain + sure[at]];
    }
    const area = pixels.length,
      length = Math.hypot(right - left + 1, bottom - top + 1);
    if (certain <= SURE_SHARE * area) continue;
    const isLong = length >= LONG_PX * scale && area < SLENDER * scale * length,
      isSmall = area <= SPECK_PX2 * scale ** 2;
    if (!isLong && !isSmall) continue;
    const around = shareAround(strokes, height, width, Math.floor(sumY / area), Math.floor(sumX / area), side >> 1);
    if ((isLong && around < BUSY_SCRATCH) || (isSmall && around < BUSY_SPECK)) for (const at of pixels) mask[at] = 1;
  }
}

function shareAround(strokes, height, width, y, x, radius) {
  let sum = 0;
  for (let v = y - radius; v <= y + radius; v++) {
    for (let u = x - radius; u <= x + radius; u++)
      sum += strokes[mirrored101(v, height) * width + mirrored101(u, width)];
  }
  return sum / (2 * radius + 1) ** 2;
}

/**
 * A gray 0..1 with marked pixels, and those beside them, filled from what is round them, from the outside inward.
 *
 * The numbers are those of OpenCV 5 to the last bit: 32-bit floats, the order of pixels, and what it does at the edge.
 */
export function inpaint(gray, mask) {
  const { height, width } = gray,
    wanted = extremum(mask, height, width, [1, 1, 1], 1),
    near = extremum(wanted, height, width, new Array(2 * FILL_RADIUS + 1).fill(FILL_RADIUS), 1);
  const [open, around] = [wanted, near].map((each) => framed(each, height, width, Uint8Array)),
    values = framed(
      gray.data.map((level) => roundHalfEven(level * 255)),
      height,
      width,
      Float32Array,
    ),
    picture = { height: height + 2, width: width + 2, open, values, times: new Float32Array(open.length).fill(FAR) };
  const edge = edgeOf(picture),
    before = [];
  for (const at of edge) picture.times[at] = 0;
  for (let at = 0; at < open.length; at++) if (open[at] || picture.times[at] === 0) around[at] = 0;
  march({ ...picture, open: around }, edge, (at) => before.push(at));
  for (const at of before) picture.times[at] *= -1;
  march(picture, edge, (at) => {
    values[at] = filled(picture, at);
  });
  const found = plane(height, width);
  for (let at = 0; at < wanted.length; at++)
    found.data[at] = wanted[at] ? values[at + width + 3 + 2 * Math.floor(at / width)] / 255 : gray.data[at];
  return found;
}

/** The same samples with a frame of one pixel, which is known and never reached. */
function framed(samples, height, width, Samples) {
  const found = new Samples((height + 2) * (width + 2));
  for (let y = 0; y < height; y++) found.set(samples.subarray(y * width, (y + 1) * width), (y + 1) * (width + 2) + 1);
  return found;
}

/** Known pixels above, below or beside open ones. */
function edgeOf({ height, width, open }) {
  const found = [];
  for (let y = 1; y < height - 1; y++) {
    for (let at = y * width + 1; at < (y + 1) * width - 1; at++)
      if (!open[at] && (open[at - width] || open[at - 1] || open[at + width] || open[at + 1])) found.push(at);
  }
  return found;
}

/** Finds when a front that starts at the edge reaches open pixels; `visit` is called in that order, before each is known. */
function march({ width, open, times }, edge, visit) {
  const queue = new Queue();
  for (const at of edge) queue.push(0, at);
  for (let at = queue.pop(); at !== undefined; at = queue.pop()) {
    for (const next of [at - width, at - 1, at + width, at + 1]) {
      if (!open[next]) continue;
      times[next] = arrival(times, open, next, width);
      visit(next);
      open[next] = 0;
      queue.push(times[next], next);
    }
  }
}

/** When the front reaches a pixel: the eikonal equation, from its known neighbors. */
function arrival(times, open, at, width) {
  let best = FAR + 1;
  for (const up of [at - width, at + width]) {
    for (const side of [at - 1, at + 1]) {
      const [first, second] = [open[up] ? FAR : times[up], open[side] ? FAR : times[side]],
        off = Math.abs(first - second);
      const time = off < 1 ? (first + second + Math.sqrt(2 - off * off)) / 2 : Math.min(first, second) + 1;
      best = Math.min(best, time);
    }
  }
  return best;
}

/**
 * A pixel's value: of the known ones round it, more of those near and along the front's way. OpenCV changes it by about a
 * level along the gradients, and counts those between two known pixels fourfold; so does this.
 */
function filled({ height, width, open, values, times }, at) {
  const y = Math.floor(at / width),
    x = at % width,
    wayY = way(times, open, at, width),
    wayX = way(times, open, at, 1);
  let total = fround(1e-20),
    sum = 0,
    [jumpY, jumpX] = [0, 0];
  for (let v = Math.max(1, y - FILL_RADIUS); v <= Math.min(height - 2, y + FILL_RADIUS); v++) {
    for (let u = Math.max(1, x - FILL_RADIUS); u <= Math.min(width - 2, x + FILL_RADIUS); u++) {
      const here = v * width + u,
        dy = y - v,
        dx = x - u,
        squared = dy * dy + dx * dx;
      if (open[here] || squared > FILL_RADIUS ** 2) continue;
      const along = fround(fround(dx * wayX) + fround(dy * wayY)),
        near = fround(1 / (squared * Math.sqrt(squared))),
        alike = fround(1 / (1 + Math.abs(fround(times[here] - times[at]))));
      const weight = Math.abs(fround(fround(near * alike) * (Math.abs(along) <= LEAST_ALONG ? fround(1e-6) : along)));
      // In the first row and column, gradients are those of the second
      const inner = Math.max(v, 2) * width + Math.max(u, 2),
        slopeX = slope(values, open, here, 1, inner, inner - Math.max(u, 2) + Math.min(u, width - 3)),
        slopeY = slope(values, open, here, width, inner, Math.min(v, height - 3) * width + Math.max(u, 2));
      sum = fround(sum + fround(weight * values[here]));
      jumpX = fround(jumpX - fround(weight * (slopeX * dx)));
      jumpY = fround(jumpY - fround(weight * (slopeY * dy)));
      total = fround(total + weight);
    }
  }
  const length = Math.sqrt(fround(fround(jumpX * jumpX) + fround(jumpY * jumpY))) + 1e-20;
  const value = roundHalfEven(fround(fround(sum / total) + fround(jumpX + jumpY) / length + 0.5));
  return Math.min(255, Math.max(0, value));
}

/** How the front's time changes from pixel to pixel. */
function way(times, open, at, step) {
  const [before, after] = [!open[at - step], !open[at + step]];
  if (before && after) return fround(fround(times[at + step] - times[at - step]) / 2);
  if (after) return fround(times[at + step] - times[at]);
  return before ? fround(times[at] - times[at - step]) : 0;
}

/** How values change from pixel to pixel at `at`, read at `first` and `last`, which differ from it at the picture's edge. */
function slope(values, open, at, step, first, last) {
  const [before, after] = [!open[at - step], !open[at + step]];
  if (before && after) return (values[last + step] - values[first - step]) * 2;
  if (after) return values[last + step] - values[first];
  return before ? values[last] - values[first - step] : 0;
}

/** Pixels by time, the earliest first, and of equal ones the first that came: a binary heap. */
class Queue {
  constructor() {
    this.heap = [];
    this.count = 0;
  }

  push(time, at) {
    const { heap } = this,
      item = { time, number: this.count++, at };
    let i = heap.push(item) - 1;
    for (; i > 0 && isBefore(item, heap[(i - 1) >> 1]); i = (i - 1) >> 1) heap[i] = heap[(i - 1) >> 1];
    heap[i] = item;
  }

  pop() {
    const { heap } = this,
      first = heap[0],
      last = heap.pop();
    if (heap.length) {
      let i = 0;
      for (let next = 1; next < heap.length; next = 2 * i + 1) {
        if (next + 1 < heap.length && isBefore(heap[next + 1], heap[next])) next++;
        if (isBefore(last, heap[next])) break;
        heap[i] = heap[next];
        i = next;
      }
      heap[i] = last;
    }
    return first?.at;
  }
}

const isBefore = (one, other) => one.time < other.time || (one.time === other.time && one.number < other.number);

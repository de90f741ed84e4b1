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
const FILL_RADIUS = 3; // pixels round one that its value is a mean of

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

/** A gray 0..1 with marked pixels, and those beside them, filled from what is round them, from the outside inward. */
export function inpaint(gray, mask) {
  const { height, width } = gray,
    open = grown(mask, height, width),
    found = plane(height, width);
  found.data.set(gray.data.map((level) => roundHalfEven(level * 255)));
  const distance = new Float32Array(open.length),
    known = open.map((each) => 1 - each);
  const outside = march(known, height, width, 2 * FILL_RADIUS, () => {}, new Float32Array(open.length));
  for (let at = 0; at < open.length; at++) distance[at] = open[at] ? 0 : -Math.max(0, outside[at] - 1);
  march(
    open,
    height,
    width,
    Infinity,
    (at, seen) => {
      found.data[at] = filled(found.data, distance, seen, height, width, Math.floor(at / width), at % width);
    },
    distance,
  );
  for (let at = 0; at < open.length; at++) found.data[at] = open[at] ? found.data[at] / 255 : gray.data[at];
  return found;
}

/** When a front that starts at a region's edge reaches its pixels, until `latest`; `visit` is called in that order. */
function march(region, height, width, latest, visit, distance) {
  const seen = region.map((each) => 1 - each),
    queue = new Queue();
  const touch = (y, x) => {
    const at = y * width + x;
    if (y < 0 || x < 0 || y >= height || x >= width || seen[at]) return;
    distance[at] = arrival(distance, seen, height, width, y, x);
    visit(at, seen);
    seen[at] = 1;
    if (distance[at] < latest) queue.push(distance[at], at);
  };
  const spread = (at) => {
    const y = Math.floor(at / width),
      x = at % width;
    for (const [v, u] of [
      [y - 1, x],
      [y, x - 1],
      [y + 1, x],
      [y, x + 1],
    ])
      touch(v, u);
  };
  for (let at = 0; at < region.length; at++) {
    const x = at % width,
      beside =
        (x > 0 && region[at - 1]) || (x < width - 1 && region[at + 1]) || region[at - width] || region[at + width];
    if (!region[at] && beside) queue.push(0, at);
  }
  for (let at = queue.pop(); at !== undefined; at = queue.pop()) spread(at);
  return distance;
}

function grown(mask, height, width) {
  return extremum(mask, height, width, [1, 1, 1], 1);
}

/** When the front reaches a pixel: the eikonal equation, from its known neighbors. */
function arrival(distance, known, height, width, y, x) {
  const time = (v, u) =>
    v >= 0 && u >= 0 && v < height && u < width && known[v * width + u] ? Math.max(0, distance[v * width + u]) : 1e6;
  let best = 1e6;
  for (const dy of [-1, 1]) {
    for (const dx of [-1, 1]) {
      const up = time(y + dy, x),
        side = time(y, x + dx),
        off = Math.abs(up - side);
      best = Math.min(best, off < 1 ? (up + side + Math.sqrt(2 - off * off)) / 2 : Math.min(up, side) + 1);
    }
  }
  return best;
}

/**
 * A pixel's value: of the known ones round it, more of those near and along the front's way. OpenCV changes it by about a
 * level along the gradients, and counts those between two known pixels fourfold; so does this.
 */
function filled(values, distance, known, height, width, y, x) {
  const slope = (data, v, u, dv, du, middle) => {
    const at = v * width + u,
      step = dv * width + du,
      here = data[at];
    const before = v >= dv && u >= du && known[at - step],
      after = v + dv < height && u + du < width && known[at + step];
    if (before && after) return (data[at + step] - data[at - step]) * middle;
    return after ? data[at + step] - here : before ? here - data[at - step] : 0;
  };
  const own = distance[y * width + x],
    wayY = slope(distance, y, x, 1, 0, 0.5),
    wayX = slope(distance, y, x, 0, 1, 0.5);
  let total = 1e-20,
    sum = 0,
    [jumpY, jumpX] = [0, 0];
  for (let v = Math.max(0, y - FILL_RADIUS); v <= Math.min(height - 1, y + FILL_RADIUS); v++) {
    for (let u = Math.max(0, x - FILL_RADIUS); u <= Math.min(width - 1, x + FILL_RADIUS); u++) {
      const dy = y - v,
        dx = x - u,
        squared = dy * dy + dx * dx;
      if (!known[v * width + u] || squared > FILL_RADIUS ** 2 || squared === 0) continue;
      const along = Math.abs(dy * wayY + dx * wayX) || 1e-6;
      const weight = along / (squared * Math.sqrt(squared)) / (1 + Math.abs(distance[v * width + u] - own));
      total += weight;
      sum += weight * values[v * width + u];
      jumpY -= weight * slope(values, v, u, 1, 0, 2) * dy;
      jumpX -= weight * slope(values, v, u, 0, 1, 2) * dx;
    }
  }
  const jump = (jumpY + jumpX) / (Math.hypot(jumpY, jumpX) + 1e-20);
  return Math.min(255, Math.max(0, roundHalfEven(sum / total + jump + 0.5)));
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

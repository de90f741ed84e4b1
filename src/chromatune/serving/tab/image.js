// Pictures of one channel as planes, resized and blurred as OpenCV does, so that both engines give the same colors.

/**
 * @typedef {object} Plane
 * @property {number} height
 * @property {number} width
 * @property {Float32Array|Uint8Array|Uint16Array} data height × width, row by row
 */

/** @returns {Plane} of zeros, float32 unless `kind` says otherwise */
export const plane = (height, width, kind = Float32Array) => ({ height, width, data: new kind(height * width) });

/** A plane of the same size: `f(value, index)` at each pixel. */
export function map(source, f) {
  const found = plane(source.height, source.width);
  for (let i = 0; i < found.data.length; i++) found.data[i] = f(source.data[i], i);
  return found;
}

/** How a value is stored in an array like this: integers rounded, and within what it holds. */
function rounder(data) {
  if (data instanceof Float32Array) return (value) => value;
  const most = data instanceof Uint16Array ? 65535 : 255;
  return (value) => roundHalfEven(Math.min(most, Math.max(0, value)));
}

/** To the next integer, halves to the even one, as C's rint. */
export function roundHalfEven(value) {
  const floor = Math.floor(value),
    rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** At another size: area means where it shrinks, bicubic where it grows (`color.resize`). Integers stay integers. */
export function resize(source, height, width) {
  if (height === source.height && width === source.width) return source;
  const shrinks = height <= source.height && width <= source.width;
  return shrinks ? resizeArea(source, height, width) : resizeCubic(source, height, width);
}

/**
 * At another size, no larger: the mean of what each pixel covers (OpenCV's INTER_AREA). Sums are float32, as OpenCV's,
 * so that integers halfway between two are rounded to the same one.
 */
export function resizeArea(source, height, width) {
  if (height === source.height && width === source.width) return source;
  if (height > source.height || width > source.width) return resizeTaps(source, height, width, areaTapsUp, 2);
  const down = source.height / height,
    across = source.width / width;
  if (Number.isInteger(down) && Number.isInteger(across)) return wholeBlocks(source, height, width, down, across);
  const found = plane(height, width, source.data.constructor),
    round = rounder(source.data);
  const columns = areaWeights(source.width, width),
    rows = areaWeights(source.height, height);
  const line = new Float32Array(width),
    sum = new Float32Array(width);
  let done = -1; // row of the source that `line` holds
  for (let y = 0; y < height; y++) {
    sum.fill(0);
    for (let at = rows.starts[y]; at < rows.starts[y + 1]; at++) {
      const row = rows.indices[at],
        weight = rows.weights[at];
      if (row !== done) sumColumns(source, row, columns, line);
      done = row;
      for (let x = 0; x < width; x++) sum[x] += Math.fround(weight * line[x]);
    }
    for (let x = 0; x < width; x++) found.data[y * width + x] = round(sum[x]);
  }
  return found;
}

function sumColumns({ data, width: full }, row, { starts, indices, weights }, line) {
  const first = row * full;
  for (let x = 0; x < line.length; x++) {
    let sum = 0;
    for (let at = starts[x]; at < starts[x + 1]; at++) {
      sum = Math.fround(sum + Math.fround(weights[at] * data[first + indices[at]]));
    }
    line[x] = sum;
  }
}

/** Which pixels of a side each of fewer ones covers, and how far; shares below a thousandth do not count. */
function areaWeights(full, small) {
  const starts = new Int32Array(small + 1),
    indices = [],
    weights = [],
    scale = full / small;
  for (let i = 0; i < small; i++) {
    const from = i * scale,
      to = from + scale,
      covered = Math.min(scale, full - from);
    const last = Math.min(Math.floor(to), full - 1),
      first = Math.min(Math.ceil(from), last);
    const add = (index, share) => {
      indices.push(index);
      weights.push(share / covered);
    };
    if (first - from > 1e-3) add(first - 1, first - from);
    for (let k = first; k < last; k++) add(k, 1);
    if (to - last > 1e-3) add(last, Math.min(to - last, 1, covered));
    starts[i + 1] = indices.length;
  }
  return { starts, indices: Int32Array.from(indices), weights: Float32Array.from(weights) };
}

/** Means of blocks of down × across pixels; of four, halves are rounded up. */
function wholeBlocks(source, height, width, down, across) {
  const found = plane(height, width, source.data.constructor),
    whole = !(source.data instanceof Float32Array);
  const scale = Math.fround(1 / (down * across)),
    isFour = whole && down === 2 && across === 2;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      let sum = 0;
      for (let v = y * down; v < (y + 1) * down; v++) {
        for (let u = x * across; u < (x + 1) * across; u++) sum += source.data[v * source.width + u];
      }
      const mean = Math.fround(sum * scale);
      found.data[at] = isFour ? (sum + 2) >> 2 : whole ? roundHalfEven(mean) : mean;
    }
  }
  return found;
}

/** At another size, linear between the pixels' centers. */
export const resizeLinear = (source, height, width) => resizeTaps(source, height, width, linearTaps, 2);

/** At another size, by Keys's cubic with a = -0.75, as OpenCV has it. */
export const resizeCubic = (source, height, width) => resizeTaps(source, height, width, cubicTaps, 4);

/** At another size, each pixel a sum of a few along each side. */
function resizeTaps(source, height, width, tapsOf, count) {
  if (height === source.height && width === source.width) return source;
  const columns = tapsOf(source.width, width),
    rows = tapsOf(source.height, height),
    round = rounder(source.data);
  const found = plane(height, width, source.data.constructor),
    wide = plane(source.height, width);
  for (let y = 0; y < source.height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let t = 0; t < count; t++) {
        sum += columns.weights[x * count + t] * source.data[y * source.width + columns.indices[x * count + t]];
      }
      wide.data[y * width + x] = sum;
    }
  }
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let t = 0; t < count; t++) {
        sum += rows.weights[y * count + t] * wide.data[rows.indices[y * count + t] * width + x];
      }
      found.data[y * width + x] = round(sum);
    }
  }
  return found;
}

function taps(from, to, count, weigh) {
  const indices = new Int32Array(to * count),
    weights = new Float64Array(to * count);
  for (let i = 0; i < to; i++) {
    const center = ((i + 0.5) * from) / to - 0.5,
      first = Math.floor(center),
      shares = weigh(center - first, first, i);
    for (let t = 0; t < count; t++) {
      indices[i * count + t] = Math.min(from - 1, Math.max(0, first + t - (count / 2 - 1)));
      weights[i * count + t] = shares[t];
    }
  }
  return { indices, weights };
}

export const linearTaps = (from, to) => taps(from, to, 2, (off) => [1 - off, off]);

function cubicTaps(from, to) {
  const a = -0.75;
  return taps(from, to, 4, (x) => {
    const far = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
    const near = ((a + 2) * x - (a + 3)) * x * x + 1,
      rest = 1 - x;
    const next = ((a + 2) * rest - (a + 3)) * rest * rest + 1;
    return [far, near, next, 1 - far - near - next];
  });
}

/** What OpenCV does for INTER_AREA where a side grows: nearly the nearest pixel. */
function areaTapsUp(from, to) {
  const indices = new Int32Array(to * 2),
    weights = new Float64Array(to * 2),
    scale = from / to;
  for (let i = 0; i < to; i++) {
    const first = Math.floor(i * scale),
      over = i + 1 - (first + 1) / scale,
      share = over <= 0 ? 0 : over - Math.floor(over);
    indices.set([first, Math.min(from - 1, first + 1)], 2 * i);
    weights.set([1 - share, share], 2 * i);
  }
  return { indices, weights };
}

/** Blurred by a Gaussian of `sigma` pixels, mirrored at its edges without their pixels (BORDER_REFLECT_101). */
export function gaussianBlur(source, sigma) {
  const radius = (roundHalfEven(sigma * 4 * 2 + 1) | 1) >> 1;
  const half = Float64Array.from({ length: radius + 1 }, (_, i) => Math.exp(-(i * i) / (2 * sigma * sigma)));
  const total = 2 * half.reduce((sum, each) => sum + each, 0) - half[0];
  return separable(
    source,
    half.map((each) => each / total),
    radius,
  );
}

/** Convolved along rows and columns; `half` is the kernel from its middle on. */
function separable({ height, width, data }, half, radius) {
  const found = plane(height, width),
    across = new Float64Array(height * width),
    line = new Float64Array(width + 2 * radius),
    sum = new Float64Array(width);
  for (let first = 0; first < across.length; first += width) {
    for (let i = -radius; i < width + radius; i++) line[i + radius] = data[first + mirrored101(i, width)];
    for (let x = 0; x < width; x++) {
      const middle = x + radius;
      let total = half[0] * line[middle];
      for (let k = 1; k <= radius; k++) total += half[k] * (line[middle - k] + line[middle + k]);
      across[first + x] = total;
    }
  }
  for (let y = 0; y < height; y++) {
    for (let x = 0, own = y * width; x < width; x++) sum[x] = half[0] * across[own + x];
    for (let k = 1; k <= radius; k++)
      addRows(sum, across, mirrored101(y - k, height), mirrored101(y + k, height), half[k]);
    found.data.set(sum, y * width);
  }
  return found;
}

function addRows(sum, across, one, other, weight) {
  const width = sum.length,
    above = one * width,
    below = other * width;
  for (let x = 0; x < width; x++) sum[x] += weight * (across[above + x] + across[below + x]);
}

/** Means over windows of (2 rows + 1) × (2 columns + 1) pixels, mirrored at the edges with their pixels. */
export function boxBlur({ height, width, data }, rows, columns = rows) {
  const found = plane(height, width),
    out = found.data,
    across = new Float64Array(height * width),
    line = new Float64Array(width + 2 * columns),
    sum = new Float64Array(width),
    scale = 1 / ((2 * columns + 1) * (2 * rows + 1));
  for (let first = 0; first < across.length; first += width) {
    for (let i = -columns; i < width + columns; i++) line[i + columns] = data[first + mirrored(i, width)];
    let total = 0;
    for (let i = 0; i < 2 * columns; i++) total += line[i];
    for (let x = 0; x < width; x++) {
      total += line[x + 2 * columns];
      across[first + x] = total;
      total -= line[x];
    }
  }
  for (let y = -rows; y < rows; y++) {
    for (let x = 0, first = mirrored(y, height) * width; x < width; x++) sum[x] += across[first + x];
  }
  for (let y = 0; y < height; y++) {
    const next = mirrored(y + rows, height) * width,
      last = mirrored(y - rows, height) * width;
    for (let x = 0, own = y * width; x < width; x++, own++) {
      const total = sum[x] + across[next + x];
      out[own] = total * scale;
      sum[x] = total - across[last + x];
    }
  }
  return found;
}

function mirrored(index, count) {
  while (index < 0 || index >= count) index = index < 0 ? -index - 1 : 2 * count - 1 - index;
  return index;
}

/** The index of a pixel beyond an edge, mirrored without the edge's own (BORDER_REFLECT_101). */
export function mirrored101(index, count) {
  if (count === 1) return 0;
  while (index < 0 || index >= count) index = index < 0 ? -index : 2 * count - 2 - index;
  return index;
}

/** The regions of marked pixels that touch, also at corners: for each, the indices of its pixels. */
export function* components(marked, height, width) {
  const seen = new Uint8Array(marked.length);
  for (let start = 0; start < marked.length; start++) {
    if (!marked[start] || seen[start]) continue;
    const pixels = [start];
    seen[start] = 1;
    for (let next = 0; next < pixels.length; next++) {
      const y = Math.floor(pixels[next] / width),
        x = pixels[next] % width;
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const at = v * width + u;
          if (!marked[at] || seen[at]) continue;
          seen[at] = 1;
          pixels.push(at);
        }
      }
    }
    yield pixels;
  }
}

/** The value at `percent` of sorted values, linear between two of them. */
export function percentile(sorted, percent) {
  const at = ((sorted.length - 1) * percent) / 100,
    below = Math.floor(at);
  return sorted[below] + (at - below) * (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]);
}

/** Linear between the points (xs rising, ys), constant beyond them, as NumPy's interp. */
export function interpolate(x, xs, ys) {
  if (x <= xs[0]) return ys[0];
  for (let i = 1; i < xs.length; i++) {
    if (x <= xs[i])
      return xs[i] === xs[i - 1] ? ys[i] : ys[i - 1] + ((ys[i] - ys[i - 1]) * (x - xs[i - 1])) / (xs[i] - xs[i - 1]);
  }
  return ys.at(-1);
}

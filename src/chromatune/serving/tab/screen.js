// The dots of a printed picture, taken out: frequencies that stand out are notched (`remove_screen` of
// `chromatune.color.restoration`).

import { boxBlur, gaussianBlur, mirrored101, plane } from "./image.js";
import { clamp } from "./luminance.js";

const SCREEN_PEAK = 10,
  SCREEN_FREQUENCY = 0.14,
  SCREEN_ENERGY = 0.15;

/** The gray without a screen; the plane itself where it has none. */
export function removeScreen(gray) {
  const { height, width } = gray,
    half = (width >> 1) + 1,
    count = height * half;
  let mean = 0;
  for (const level of gray.data) mean += level / gray.data.length;
  const rows = hanning(height),
    columns = hanning(width);
  const windowed = gray.data.map((level, i) => (level - mean) * rows[Math.floor(i / width)] * columns[i % width]);
  const [re, im] = halfSpectrum(windowed, height, width);
  const strength = new Float32Array(count),
    fine = new Uint8Array(count),
    log = plane(height, half);
  for (let y = 0; y < height; y++) {
    const fy = (y <= (height - 1) >> 1 ? y : y - height) / height;
    for (let x = 0; x < half; x++) {
      const at = y * half + x;
      strength[at] = Math.sqrt(re[at] ** 2 + im[at] ** 2);
      fine[at] = fy * fy + (x / width) ** 2 > SCREEN_FREQUENCY ** 2;
      log.data[at] = Math.log(strength[at] + 1e-4);
    }
  }
  const around = wrapped(log, 12, (padded) => boxBlur101(padded, 12)),
    notches = plane(height, half);
  let peaked = 0,
    all = 1e-9;
  for (let at = 0; at < count; at++) {
    if (!fine[at]) continue;
    all += SCREEN_ENERGY * strength[at] ** 2;
    if (log.data[at] - around.data[at] <= Math.log(SCREEN_PEAK)) continue;
    notches.data[at] = 1;
    peaked += strength[at] ** 2;
  }
  return peaked < all ? gray : notched(gray, notches);
}

function notched(gray, peaks) {
  const { height, width } = gray,
    half = peaks.width,
    wide = plane(height, half);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < half; x++) {
      if (!peaks.data[y * half + x]) continue;
      for (let v = Math.max(0, y - 2); v <= Math.min(height - 1, y + 2); v++) {
        for (let u = Math.max(0, x - 2); u <= Math.min(half - 1, x + 2); u++) wide.data[v * half + u] = 1;
      }
    }
  }
  const blurred = wrapped(wide, 6, (padded) => gaussianBlur(padded, 1.2)).data;
  const [re, im] = transform(gray.data, new Float32Array(gray.data.length), height, width, -1);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      // A real picture's spectrum is the same, conjugated, at the opposite frequency
      const at = x < half ? y * half + x : ((height - y) % height) * half + width - x,
        kept = 1 - clamp(1.3 * blurred[at], 0, 1);
      re[y * width + x] *= kept;
      im[y * width + x] *= kept;
    }
  }
  const [back] = transform(re, im, height, width, 1),
    found = plane(height, width);
  for (let i = 0; i < back.length; i++) found.data[i] = clamp(back[i] / back.length, 0, 1);
  return found;
}

const hanning = (count) =>
  Float64Array.from({ length: count }, (_, i) =>
    count === 1 ? 1 : 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (count - 1)),
  );

/** What a filter gives of a plane whose rows wrap round. */
function wrapped(source, margin, filter) {
  const { height, width } = source,
    padded = plane(height + 2 * margin, width);
  for (let y = 0; y < padded.height; y++) {
    const from = (((y - margin) % height) + height) % height;
    padded.data.set(source.data.subarray(from * width, (from + 1) * width), y * width);
  }
  const { data } = filter(padded);
  return { height, width, data: data.slice(margin * width, (margin + height) * width) };
}

/** A box blur that mirrors columns without the first: padded so, and cut again. */
function boxBlur101(source, radius) {
  const { height, width } = source,
    wide = plane(height, width + 2 * radius);
  for (let y = 0; y < height; y++) {
    for (let x = -radius; x < width + radius; x++) {
      wide.data[y * wide.width + x + radius] = source.data[y * width + mirrored101(x, width)];
    }
  }
  const blurred = boxBlur(wide, radius),
    found = plane(height, width);
  for (let y = 0; y < height; y++)
    found.data.set(blurred.data.subarray(y * wide.width + radius, y * wide.width + radius + width), y * width);
  return found;
}

/** The two-dimensional Fourier transform of real values, not scaled: its columns up to half of the width. */
function halfSpectrum(values, height, width) {
  const half = (width >> 1) + 1,
    re = new Float64Array(height * half),
    im = new Float64Array(height * half);
  const rows = planOf(width, -1),
    columns = planOf(height, -1);
  for (let y = 0; y < height; y += 2) {
    // two rows in one transform, as its real and its imaginary part
    const odd = y + 1 < height,
      pair = [
        values.subarray(y * width, (y + 1) * width),
        odd ? values.subarray((y + 1) * width, (y + 2) * width) : new Float32Array(width),
      ];
    const [a, b] = rows(...pair);
    for (let x = 0; x < half; x++) {
      const back = x ? width - x : 0;
      re[y * half + x] = (a[x] + a[back]) / 2;
      im[y * half + x] = (b[x] - b[back]) / 2;
      if (!odd) continue;
      re[(y + 1) * half + x] = (b[x] + b[back]) / 2;
      im[(y + 1) * half + x] = (a[back] - a[x]) / 2;
    }
  }
  const line = [new Float64Array(height), new Float64Array(height)];
  for (let x = 0; x < half; x++) {
    for (let y = 0; y < height; y++) [line[0][y], line[1][y]] = [re[y * half + x], im[y * half + x]];
    const [a, b] = columns(...line);
    for (let y = 0; y < height; y++) [re[y * half + x], im[y * half + x]] = [a[y], b[y]];
  }
  return [re, im];
}

/** The same of complex values, all of it. */
function transform(re, im, height, width, sign) {
  const found = [Float64Array.from(re), Float64Array.from(im)];
  for (const [count, step, stride, length] of [
    [height, width, 1, width],
    [width, 1, width, height],
  ]) {
    const plan = planOf(length, sign),
      line = [new Float64Array(length), new Float64Array(length)];
    for (let k = 0; k < count; k++) {
      for (const part of [0, 1]) for (let i = 0; i < length; i++) line[part][i] = found[part][k * step + i * stride];
      const done = plan(line[0], line[1]);
      for (const part of [0, 1]) for (let i = 0; i < length; i++) found[part][k * step + i * stride] = done[part][i];
    }
  }
  return found;
}

/** The transform of one length, by its prime factors (Stockham's order); what it returns holds until the next call. */
function planOf(length, sign) {
  const cos = Float64Array.from({ length }, (_, i) => Math.cos((2 * Math.PI * i) / length));
  const sin = Float64Array.from({ length }, (_, i) => sign * Math.sin((2 * Math.PI * i) / length));
  const buffers = [0, 1].map(() => [new Float64Array(length), new Float64Array(length)]),
    primes = [];
  for (let rest = length, prime = 2; rest > 1; rest % prime ? prime++ : (primes.push(prime), (rest /= prime)));
  return (re, im) => {
    let from = [re, im],
      left = length,
      stride = 1;
    for (const [turn, prime] of primes.entries()) {
      const to = buffers[turn % 2],
        part = left / prime;
      for (let j = 0; j < part; j++) {
        if (prime === 2) pairs(from, to, cos, sin, j, part, stride);
        else group(from, to, cos, sin, j, part, stride, prime);
      }
      [from, left, stride] = [to, part, stride * prime];
    }
    return from;
  };
}

/** One step of a transform for two values at a time. */
function pairs([re, im], [outRe, outIm], cos, sin, j, part, stride) {
  const wr = cos[j * stride],
    wi = sin[j * stride];
  for (let k = 0; k < stride; k++) {
    const a = k + stride * j,
      b = a + stride * part,
      to = k + 2 * stride * j,
      dr = re[a] - re[b],
      di = im[a] - im[b];
    outRe[to] = re[a] + re[b];
    outIm[to] = im[a] + im[b];
    outRe[to + stride] = dr * wr - di * wi;
    outIm[to + stride] = dr * wi + di * wr;
  }
}

/** The same for as many as a prime. */
function group([re, im], [outRe, outIm], cos, sin, j, part, stride, prime) {
  const length = cos.length,
    step = length / prime;
  for (let k = 0; k < stride; k++) {
    for (let t = 0; t < prime; t++) {
      let sumRe = 0,
        sumIm = 0;
      for (let r = 0; r < prime; r++) {
        const at = k + stride * (j + part * r),
          turn = (r * t * step) % length;
        sumRe += re[at] * cos[turn] - im[at] * sin[turn];
        sumIm += re[at] * sin[turn] + im[at] * cos[turn];
      }
      const turn = (j * t * stride) % length,
        to = k + stride * (prime * j + t);
      outRe[to] = sumRe * cos[turn] - sumIm * sin[turn];
      outIm[to] = sumRe * sin[turn] + sumIm * cos[turn];
    }
  }
}

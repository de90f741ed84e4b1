// NumPy's standard normal numbers, to the bit: `Generator(PCG64(seed)).standard_normal(count, dtype=float32)`.
//
// Seeds are spread by M. E. O'Neill's seed_seq (2015), numbers drawn by her PCG XSL RR 128/64 (2014), and normal ones by
// Marsaglia and Tsang's ziggurat (2000) of 256 layers.

const MULTIPLIER = (2549297995355413924n << 64n) | 4865540595714422341n;
const MASK_64 = (1n << 64n) - 1n,
  MASK_128 = (1n << 128n) - 1n;
const LAYERS = 256,
  RIGHTMOST = 3.6541528853610088,
  AREA = 0.00492867323399; // of each layer
const FRACTION_BITS = 2 ** 23,
  UNIT = 2 ** -24;

/** `count` standard normal numbers, float32, of a seed 0..2⁶³ - 1, a BigInt or a number. */
export function normalNoise(seed, count) {
  const next = generator(BigInt(seed)),
    found = new Float32Array(count);
  for (let i = 0; i < count; i++) found[i] = draw(next);
  return found;
}

/** A function that gives the next 32 random bits: of each 64 the lower half first. */
function generator(seed) {
  const words = seedWords(seed);
  const join = (at) => [0, 1, 2, 3].reduce((sum, i) => sum | (BigInt(words[at + i]) << BigInt(32 * (i ^ 2))), 0n);
  const increment = ((join(4) << 1n) | 1n) & MASK_128;
  const step = (state) => (state * MULTIPLIER + increment) & MASK_128;
  let state = step((increment + join(0)) & MASK_128),
    upper = null;
  return () => {
    if (upper !== null) {
      const given = upper;
      upper = null;
      return given;
    }
    state = step(state);
    const mixed = (state >> 64n) ^ (state & MASK_64),
      turn = state >> 122n;
    const bits = ((mixed >> turn) | (mixed << (64n - turn))) & MASK_64;
    upper = Number(bits >> 32n);
    return Number(bits & 0xffffffffn);
  };
}

/** Eight words of 32 bits that NumPy's SeedSequence makes of a seed. */
function seedWords(seed) {
  let constant = 0x43b0d7e5;
  const hash = (value) => {
    value = (value ^ constant) >>> 0;
    constant = Math.imul(constant, 0x931e8875) >>> 0;
    value = Math.imul(value, constant) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
  const mix = (x, y) => {
    const found = (Math.imul(x, 0xca01f9dd) - Math.imul(y, 0x4973f715)) >>> 0;
    return (found ^ (found >>> 16)) >>> 0;
  };
  const entropy = [Number(seed & 0xffffffffn), Number((seed >> 32n) & 0xffffffffn), 0, 0],
    pool = entropy.map(hash);
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  }
  let other = 0x8b51f9dd;
  return Array.from({ length: 8 }, (_, i) => {
    let value = (pool[i % 4] ^ other) >>> 0;
    other = Math.imul(other, 0x58f38ded) >>> 0;
    value = Math.imul(value, other) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  });
}

/** Each layer's width per unit of 23 bits, the number of those that lie inside the next one, and its height. */
const { widths, inside, heights } = (() => {
  const density = (x) => Math.exp(-0.5 * x * x),
    edges = [AREA / density(RIGHTMOST), RIGHTMOST];
  for (let i = 2; i < LAYERS; i++) edges[i] = Math.sqrt(-2 * Math.log(AREA / edges[i - 1] + density(edges[i - 1])));
  edges[LAYERS] = 0;
  // NumPy counts the layers from the tail, layer 0, then from the narrowest one at the top
  const at = (i) => (i === 0 ? 0 : LAYERS - i);
  return {
    widths: Float32Array.from({ length: LAYERS }, (_, i) => edges[at(i)] / FRACTION_BITS),
    inside: Uint32Array.from({ length: LAYERS }, (_, i) => (edges[at(i) + 1] / edges[at(i)]) * FRACTION_BITS),
    heights: Float32Array.from({ length: LAYERS }, (_, i) => (i === 0 ? 1 : density(edges[at(i)]))),
  };
})();

function draw(next) {
  for (;;) {
    const bits = next(),
      layer = bits & 0xff,
      length = bits >>> 9;
    const x = Math.fround(length * widths[layer]),
      signed = bits & 0x100 ? -x : x;
    if (length < inside[layer]) return signed;
    if (layer === 0) {
      for (;;) {
        const beyond = Math.fround(-Math.log1p(-(next() >>> 8) * UNIT) / RIGHTMOST);
        const y = -Math.log1p(-(next() >>> 8) * UNIT);
        if (y + y > beyond * beyond) return (length >>> 8) & 1 ? -(RIGHTMOST + beyond) : RIGHTMOST + beyond;
      }
    }
    const share = (next() >>> 8) * UNIT;
    if ((heights[layer - 1] - heights[layer]) * share + heights[layer] < Math.exp(-0.5 * x * x)) return signed;
  }
}

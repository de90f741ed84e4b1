// The model in the tab: a small gray through its graphs by ONNX Runtime, and what follows until the photo's chroma.

import * as ort from "onnxruntime-web/wasm";
import { CorrectionField, gridSize, upsampleField } from "./correction_field.js";
import { plane, resize, roundHalfEven } from "./image.js";
import { chromaOf, clamp, resizeChroma, smoothChroma, unlikeSkin, vivid } from "./luminance.js";
import { normalNoise } from "./noise.js";
import { restoredView, shrink } from "./restoration.js";
import { makeReference } from "./similarity.js";

const MAX_ASPECT = 4; // longer strips are squeezed for the model's pass
const SEEDS = 2n ** 63n;
const PULL = 1.25e-4,
  GAIN = 4; // see `regionalShift`
const LATENT_CHANNELS = 4,
  LATENT_PX = 8;

/** An opened model; its files are those of `model.json`. */
export class Colorizer {
  /**
   * @param {object} description what `chromatune site` writes: info, scheduler, parts, multiple_px
   * @param {function(string): Promise<Uint8Array>} read gives a file of the model
   * @param {object} instructions reads prompts, see text.js
   * @param {string} provider of ONNX Runtime: "wasm" or "webgpu"
   */
  constructor(description, read, instructions, provider = "wasm") {
    Object.assign(this, { description, info: description.info, read, instructions, provider });
    this.sessions = new Map();
    this.embeddings = new Map();
    this.conditions = new WeakMap(); // of grays: all versions of a photo share one
    this.running = Promise.resolve(); // one pass at a time, as they share the cores
  }

  /** Opens all parts; the first color then takes no longer than any other. */
  async load() {
    await Promise.all(Object.keys(this.description.parts).map((part) => this._session(part)));
  }

  _session(part) {
    if (!this.sessions.has(part)) this.sessions.set(part, this._open(part));
    return this.sessions.get(part);
  }

  async _open(part) {
    const { graph, weights } = this.description.parts[part];
    const [model, data] = await Promise.all([this.read(graph), weights ? this.read(weights.path) : null]);
    // One after the other: graphs that are opened share a place for their weights
    return this._alone(() =>
      ort.InferenceSession.create(model, {
        executionProviders: [this.provider],
        externalData: weights ? [{ path: weights.name, data }] : [],
        logSeverityLevel: 4,
      }),
    );
  }

  /** Does what is asked when all before it is done. */
  _alone(work) {
    const done = this.running.then(work);
    this.running = done.catch(() => {});
    return done;
  }

  _run(session, feeds, names = session.outputNames) {
    return this._alone(() => session.run(feeds, names));
  }

  /** Options with the model's own values for those that are not given (`ModelInfo.resolve`). */
  resolve(options) {
    const { info } = this,
      given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null));
    const own = { ...info.defaults, prompt: info.prompt, steps: info.steps, size_px: info.size_px };
    own.vivid = given.steps === undefined ? info.vivid : 0;
    const found = { ...own, ...given };
    if (found.variant > 1 && given.steps !== undefined) {
      return { ...found, variant: 1, seed: further(found.seed, found.variant) };
    }
    return found;
  }

  /** Height and width of the model's own pass (`Colorizer.small_size`). */
  smallSize(height, width, sizePx) {
    const multiple = this.description.multiple_px,
      short = Math.max(multiple, Math.round(sizePx / multiple) * multiple);
    const aspect = Math.min(MAX_ASPECT, Math.max(height, width) / Math.min(height, width));
    const long = Math.max(short, Math.round((short * aspect) / multiple) * multiple);
    return height <= width ? [short, long] : [long, short];
  }

  /**
   * The model's output for a photo, before it meets the full size.
   *
   * @returns {Promise<object>} photo, options, view, chroma of its pass, and a variant's shift
   */
  async output(photo, options) {
    const size = this.smallSize(photo.height, photo.width, options.size_px),
      start = performance.now();
    const view = viewOf(photo, size, options.view);
    const output = { photo, options, view, chroma: await this._chromaOfPass(photo, view, options), shift: null };
    if (options.variant > 1) {
      const sampled = { ...options, seed: further(options.seed, options.variant), steps: this.info.variant_steps };
      output.shift = regionalShift(output.chroma, await this._chromaOfPass(photo, view, sampled), view.gray);
    }
    output.seconds = (performance.now() - start) / 1000;
    return output;
  }

  /** Chroma of a pass for the photo; the latest one is kept, as all variants of a photo share the model's own. */
  async _chromaOfPass(photo, { gray, chromaGain }, options) {
    const key = JSON.stringify([
      options.prompt,
      String(options.seed),
      options.steps,
      options.view,
      options.invert,
      gray.height,
      gray.width,
    ]);
    if (photo.own?.key === key) return photo.own.chroma;
    const rgb = await this.pass(gray, options),
      chroma = chromaOf(rgb, gray.height, gray.width);
    for (const each of chroma) for (let i = 0; i < each.data.length; i++) each.data[i] *= chromaGain;
    if (options.steps === this.info.steps) photo.own = { key, chroma };
    return chroma;
  }

  /** The chroma that is put onto a photo, at the size of the model's pass; `vivid` acts here. */
  chroma(output, options = output.options) {
    let found = smoothChroma(output.chroma, output.view.gray, output.options.smooth);
    if (options.vivid) found = vivid(found, options.vivid);
    if (output.shift) {
      found = found.map((each, k) => {
        const { data } = output.shift[k],
          shifted = plane(each.height, each.width);
        for (let i = 0; i < data.length; i++) shifted.data[i] = clamp(each.data[i] + data[i], -0.5, 0.5);
        return shifted;
      });
    }
    return output.photo.ownColor ? output.photo.ownColor.putInto(found, options.own_color) : found;
  }

  /** Features of the photo encoder, by stride, of a gray 0..1. */
  async features(gray) {
    return (await this._encode(gray, ["features_8", "features_16", "features_32"])).features;
  }

  /** A photo in color as a reference. */
  async reference(photo) {
    const size = this.smallSize(photo.height, photo.width, this.info.size_px),
      { gray } = restoredView(photo.plane, ...size);
    const mirrored = plane(gray.height, gray.width);
    for (let i = 0; i < gray.data.length; i++)
      mirrored.data[i] = gray.data[i - (i % gray.width) + gray.width - 1 - (i % gray.width)];
    return makeReference(photo, [await this.features(gray), await this.features(mirrored)]);
  }

  async _encode({ data, height, width }, names) {
    const session = await this._session("photo_encoder"),
      pixels = new ort.Tensor("float32", threefold(data), [1, 3, height, width]);
    const found = await this._run(session, { [session.inputNames[0]]: pixels }, names),
      features = {},
      residuals = {};
    for (const [name, { dims, data: values }] of Object.entries(found)) {
      const [, channels, rows, columns] = dims;
      if (name.startsWith("features_"))
        features[Number(name.slice(9))] = { channels, height: rows, width: columns, data: values };
      else residuals[name] = found[name];
    }
    return { features, residuals };
  }

  /** Red, green and blue 0..1, one plane after another, of a gray at the model's size. */
  async pass(gray, options) {
    const { height, width } = gray,
      dims = [1, LATENT_CHANNELS, height / LATENT_PX, width / LATENT_PX];
    const [unet, decoder, text] = await Promise.all([
      this._session("unet"),
      this._session("vae_decoder"),
      this._embedding(options.prompt),
    ]);
    if (!this.conditions.has(gray)) this.conditions.set(gray, await this._condition(unet, gray));
    const { residuals, condition } = this.conditions.get(gray);
    const latents = await this._sample(unet, dims, condition, { ...residuals, encoder_hidden_states: text }, options);
    const scaled = latents.map((value) => value / this.description.scaling_factor);
    const decoded = (await this._run(decoder, { [decoder.inputNames[0]]: new ort.Tensor("float32", scaled, dims) }))[
      decoder.outputNames[0]
    ];
    return decoded.data.map((value) => clamp(value / 2 + 0.5, 0, 1));
  }

  /** What the U-Net is told of a gray: the photo encoder's residuals, and the latents of the gray itself. */
  async _condition(unet, gray) {
    const { height, width, data } = gray,
      encoder = await this._session("vae_encoder"),
      residualNames = unet.inputNames.filter((name) => name.startsWith("residual_"));
    const { residuals } = await this._encode(gray, residualNames);
    const centered = threefold(data).map((level) => 2 * level - 1),
      pixels = new ort.Tensor("float32", centered, [1, 3, height, width]);
    const moments = (await this._run(encoder, { [encoder.inputNames[0]]: pixels }))[encoder.outputNames[0]];
    // The posterior's mean comes first
    const condition = moments.data.slice(0, (LATENT_CHANNELS * height * width) / LATENT_PX ** 2);
    return { residuals, condition };
  }

  /** Latents by DDIM (arXiv 2010.02502, formula 12) with v-prediction, without guidance. */
  async _sample(unet, dims, condition, given, options) {
    const { alphas_cumprod: alphas } = this.description,
      count = condition.length,
      total = alphas.length;
    let latents = normalNoise(options.seed, count);
    for (let index = 0; index < options.steps; index++) {
      const timestep = roundHalfEven(total - (index * total) / options.steps) - 1,
        before = timestep - Math.floor(total / options.steps);
      const noisy = new Float32Array(2 * count);
      noisy.set(latents);
      noisy.set(condition, count);
      const sample = new ort.Tensor("float32", noisy, [1, 2 * LATENT_CHANNELS, dims[2], dims[3]]);
      const output = await this._run(unet, { ...given, sample, timestep: new ort.Tensor("float32", [timestep], [1]) });
      const prediction = output[unet.outputNames[0]].data;
      const alpha = Math.sqrt(alphas[timestep]),
        sigma = Math.sqrt(1 - alphas[timestep]);
      const barBefore = before >= 0 ? alphas[before] : 1,
        alphaBefore = Math.sqrt(barBefore),
        sigmaBefore = Math.sqrt(1 - barBefore);
      latents = latents.map((value, i) => {
        const clean = alpha * value - sigma * prediction[i],
          noise = alpha * prediction[i] + sigma * value;
        return alphaBefore * clean + sigmaBefore * noise;
      });
    }
    return latents;
  }

  async _embedding(prompt) {
    const { text } = this.instructions.read(prompt);
    if (!this.embeddings.has(text)) {
      const session = await this._session("text_encoder"),
        ids = this.instructions.ids(text);
      const found = await this._run(session, {
        [session.inputNames[0]]: new ort.Tensor("int64", ids, [1, ids.length]),
      });
      this.embeddings.set(text, found[session.outputNames[0]]);
    }
    return this.embeddings.get(text);
  }
}

/** What the model sees of a photo; the latest view is kept, as versions and suggestions share it. */
function viewOf(photo, size, kind) {
  const key = `${kind} ${size}`;
  if (photo.seen?.key !== key) {
    const plain = () => ({ gray: shrink(photo.plane, ...size), chromaGain: 1, notes: [] });
    photo.seen = { key, view: kind === "plain" ? plain() : restoredView(photo.plane, ...size) };
  }
  return photo.seen.view;
}

const further = (seed, variant) => (BigInt(seed) + BigInt(variant) - 1n) % SEEDS;

function threefold(data) {
  const found = new Float32Array(3 * data.length);
  for (const channel of [0, 1, 2]) found.set(data, channel * data.length);
  return found;
}

/** What a version adds to the model's own chroma: whole regions decide (`chromatune.color.versions`). */
function regionalShift(expected, sampled, luma) {
  const size = gridSize(luma.height, luma.width),
    field = new CorrectionField(resize(luma, ...size));
  const wanted = expected.map((each, k) => {
    const found = plane(each.height, each.width);
    for (let i = 0; i < found.data.length; i++) {
      found.data[i] = (sampled[k].data[i] - each.data[i]) * unlikeSkin(expected[0].data[i], expected[1].data[i]);
    }
    return found;
  });
  const smooth = field.smooth(resizeChroma(wanted, ...size), PULL),
    fine = upsampleField(smooth, field.luma, luma);
  for (const each of fine) for (let i = 0; i < each.data.length; i++) each.data[i] *= GAIN;
  return fine;
}

/** How far a version is from the model's own colors: the likeliest first. */
export function departure(shift) {
  if (!shift) return 0;
  let sum = 0;
  for (const { data } of shift) for (const each of data) sum += each * each;
  return Math.sqrt(sum / shift[0].data.length);
}

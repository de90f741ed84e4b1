// The engine of the page in a browser's tab: answers what `serve` answers over HTTP, in a worker, from the model's files.

import * as ort from "onnxruntime-web/wasm"; // of the worker for GPUs, another build of the same
import { Colorizer } from "./colorizer.js";
import { Refusal } from "./files.js";
import { plane } from "./image.js";
import { Session } from "./session.js";
import { Instructions, PromptReader } from "./text.js";

const TRIAL_PX = 128,
  MOST_APART = 2; // levels of 255 by which a GPU's picture may differ
const MOST_SESSIONS = 3; // open photos; the page opens one again that was dropped
const INSTALLED = "needs the installed program: pip install chromatune, then chromatune serve";

const sessions = new Map(),
  cancelled = new Set();
let opening = null,
  numbers = 0;

/** The model, opened once; it is read while the page is still empty. */
function opened() {
  opening ??= open().catch((error) => {
    opening = null;
    throw error;
  });
  return opening;
}

async function open() {
  const description = await describe();
  const runtime = description.runtimes[RUNTIME];
  ort.env.wasm.wasmPaths = { mjs: new URL(runtime.code, import.meta.url).href };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  ort.env.wasm.wasmBinary = await read(runtime.binary);
  const tokenizer = JSON.parse(new TextDecoder().decode(await read(description.tokenizer)));
  const reader = new PromptReader(
    new Instructions(description.instructions),
    description.info,
    tokenizer,
    description.tokenizer_config,
  );
  const colorizer = new Colorizer(description, read, reader);
  await colorizer.load();
  return (RUNTIME === "webgpu" && (await onGpu(colorizer))) || colorizer;
}

/** The model on the GPU; null where there is none, or where it gives other colors of a small picture. */
async function onGpu(colorizer) {
  const { description, instructions } = colorizer,
    gpu = new Colorizer(description, read, instructions, "webgpu"),
    gray = plane(TRIAL_PX, TRIAL_PX),
    options = colorizer.resolve({});
  for (let i = 0; i < gray.data.length; i++) gray.data[i] = 0.5 + 0.4 * Math.sin(i / 7) * Math.cos(i / 900);
  try {
    await gpu.load();
    const wanted = await colorizer.pass(gray, options);
    const found = await gpu.pass(gray, options);
    const apart = 255 * wanted.reduce((most, level, i) => Math.max(most, Math.abs(level - found[i])), 0);
    postMessage({ engine: apart <= MOST_APART ? "webgpu" : "wasm", apart });
    return apart <= MOST_APART ? gpu : null;
  } catch (error) {
    postMessage({ engine: "wasm", reason: error.message });
    return null;
  }
}

const received = new Map(); // bytes of each file so far

/** A file of the model, with progress; one that is gzipped is unpacked, whatever the host does. */
async function read(path) {
  const answer = await fetch(new URL(path, import.meta.url));
  if (!answer.ok) throw new Refusal(`the model cannot be read (${path}: ${answer.status}); reload the page`, 0);
  const counted = answer.body.pipeThrough(
    new TransformStream({
      transform(part, controller) {
        received.set(path, (received.get(path) ?? 0) + part.length);
        postMessage({ received: [...received.values()].reduce((sum, each) => sum + each, 0) });
        controller.enqueue(part);
      },
    }),
  );
  const plain = path.endsWith(".gz") ? counted.pipeThrough(new DecompressionStream("gzip")) : counted;
  return new Uint8Array(await new Response(plain).arrayBuffer());
}

/** What a request asks for: method and path as the server's, `form` its fields, `body` its JSON. */
async function answer({ method, path, form = [], body, id }) {
  const { pathname, searchParams } = new URL(path, "http://tab/"),
    [, , kind, key, action] = pathname.split("/");
  const pause = () => rest(id);
  if (kind === "models") return { json: (await describe()).offered };
  if (kind === "videos") throw new Refusal(`a video ${INSTALLED}`, 501);
  if (kind !== "sessions") throw new Refusal(`this ${INSTALLED}`, 501);
  if (!key) return openSession(form);
  if (method === "DELETE") return void sessions.delete(key);
  const session = sessions.get(key);
  if (!session) throw new Refusal("this photo is no longer open; send it again", 404);
  const size = Number(body?.max_pixels ?? searchParams.get("max_pixels") ?? 1e6);
  switch (action) {
    case "versions":
      return { json: await session.add(body.options ?? {}) };
    case "original":
      return { blob: await session.original(size) };
    case "preview":
      return { blob: await session.preview(body, size, pause) };
    case "suggestions":
      return {
        json: {
          colors: await session.suggestions(
            ...["x", "y"].map((name) => Number(searchParams.get(name))),
            searchParams.get("version"),
          ),
        },
      };
    case "result": {
      const { bytes, suffix, name } = await session.result(body, pause);
      return { blob: new Blob([bytes], { type: suffix === ".jpg" ? "image/jpeg" : `image/${suffix.slice(1)}` }), name };
    }
    default:
      throw new Refusal(`taking the colors of a finished picture ${INSTALLED}`, 501);
  }
}

async function openSession(form) {
  const field = (name) => form.find(([each]) => each === name)?.[1],
    maxPixels = (await describe()).max_pixels;
  const references = form.filter(([name]) => name === "reference").map(([, file]) => file);
  const options = JSON.parse(field("options") ?? "{}");
  const session = await Session.open(await opened(), field("photo"), references, options, maxPixels),
    id = String(++numbers);
  sessions.set(id, session);
  if (sessions.size > MOST_SESSIONS) sessions.delete(sessions.keys().next().value);
  const { facts } = session.version(null);
  return { json: { id, version: session.last, facts } };
}

let described = null;

/** What the site says of its model, read once. */
function describe() {
  described ??= read("model.json")
    .then((bytes) => JSON.parse(new TextDecoder().decode(bytes)))
    .catch((error) => {
      described = null;
      throw error;
    });
  return described;
}

const channel = new MessageChannel(),
  waiting = [];
channel.port1.onmessage = () => waiting.shift()();

/** Lets other messages in; throws where the request was cancelled by one of them. */
async function rest(id) {
  await new Promise((done) => {
    waiting.push(done);
    channel.port2.postMessage(null);
  });
  if (cancelled.has(id)) throw new DOMException("cancelled", "AbortError");
}

self.onmessage = async ({ data: request }) => {
  if (request.cancel) return void cancelled.add(request.cancel);
  const { id } = request;
  try {
    await rest(id);
    postMessage({ id, ...(await answer(request)) });
  } catch (error) {
    const known = error instanceof Refusal || error.name === "AbortError";
    const line = known
      ? error.message
      : `this failed in the browser (${error.message}); try a smaller photo, or ${INSTALLED.slice(6)}`;
    postMessage({ id, error: { name: error.name, status: error.status ?? 500, line } });
  } finally {
    cancelled.delete(id);
  }
};
opened().catch((error) => postMessage({ failed: error.message }));

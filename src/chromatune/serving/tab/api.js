// The page's engine in this tab: the calls of the server's API, answered by a worker that runs the model here.

const MB = 1e6;
const RELOADED = "chromatune-reloaded";
const ON_GPU = new URLSearchParams(location.search).has("webgpu"); // is tried, where the address asks for it

export class Refusal extends Error {
  constructor(status, line) {
    super(line);
    this.status = status;
  }
}

const asked = new Map();
let numbers = 0;

/** The worker, once the site is kept for offline use, if the browser can: that also allows it several threads. */
const worker = keptOffline().then(() => {
  const started = new Worker(new URL(`../engine/${ON_GPU ? "worker-webgpu" : "worker"}.js`, import.meta.url), {
    type: "module",
  });
  started.onmessage = ({ data }) => hear(data);
  started.onerror = ({ message }) =>
    failAll(`this browser cannot run the model (${message ?? "it is too old"}); update it, or use another`);
  return started;
});

/** Registers the service worker; on the first visit the page is read anew through it. */
async function keptOffline() {
  const { serviceWorker } = navigator;
  if (!serviceWorker || serviceWorker.controller) return;
  try {
    const controlled = new Promise((done) => serviceWorker.addEventListener("controllerchange", done, { once: true }));
    await serviceWorker.register("service_worker.js");
    await controlled;
    if (crossOriginIsolated || sessionStorage.getItem(RELOADED)) return;
    sessionStorage.setItem(RELOADED, "yes");
    location.reload();
    await new Promise(() => {}); // until the page has gone
  } catch {
    /* such as in a private window: it works, but not offline */
  }
}

function hear(data) {
  if (data.received) return showProgress(data.received);
  if (data.engine) return showEngine(data);
  if (data.failed) return showFailure(data.failed);
  const { done, fail } = asked.get(data.id) ?? {};
  asked.delete(data.id);
  if (data.error?.name === "AbortError") fail?.(new DOMException("cancelled", "AbortError"));
  else if (data.error) fail?.(new Refusal(data.error.status, data.error.line));
  else done?.(responseOf(data));
}

function failAll(line) {
  for (const { fail } of asked.values()) fail(new Refusal(0, line));
  asked.clear();
  showFailure(line);
}

function responseOf({ json, blob, name }) {
  const headers = name ? { "content-disposition": `attachment; filename*=UTF-8''${encodeURIComponent(name)}` } : {};
  return json === undefined ? new Response(blob ?? null, { headers }) : Response.json(json, { headers });
}

/** The answer to a request. Throws a `Refusal` with a line for the user. */
export function call(path, { method = "GET", body, form, signal } = {}) {
  const id = ++numbers;
  return new Promise((done, fail) => {
    asked.set(id, { done, fail });
    worker.then((started) => {
      signal?.addEventListener("abort", () => started.postMessage({ cancel: id }));
      started.postMessage({ id, method, path, body, form });
    });
  });
}

export const send = (path, body, signal) => call(path, { method: "POST", body, signal });

export const sendForm = (path, form, { signal } = {}) =>
  call(path, { method: "POST", form: [...form.entries()], signal });

/** Says how much of the model has been read; the first visit takes some seconds, others none. */
function showProgress(bytes) {
  const total = Number(document.body.dataset.modelBytes),
    line = document.getElementById("engine-progress");
  line.hidden = bytes >= total;
  line.querySelector("progress").value = Math.min(1, bytes / total);
  line.querySelector("span").textContent =
    `Loading the model: ${(bytes / MB).toFixed(0)} of ${(total / MB).toFixed(0)} MB`;
}

function showFailure(line) {
  document.getElementById("engine-progress").hidden = true;
  document.getElementById("status").textContent = line;
}

/** Notes which engine runs, and why it is not the GPU where that was asked for. */
function showEngine({ engine, apart, reason }) {
  document.body.dataset.engine = engine;
  const differs = apart === undefined ? "" : `its colors differ by ${apart.toFixed(1)} levels`;
  if (engine === "wasm") document.getElementById("status").textContent = `The GPU is not used: ${reason ?? differs}`;
}

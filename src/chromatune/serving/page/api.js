// The server's API: a token where one is asked for, another try where the server is busy, one line where it refuses.

const TOKEN = "chromatune-token";
const MOST_TRIES = 30;

export class Refusal extends Error {
  constructor(status, line) {
    super(line);
    this.status = status;
  }
}

/** The answer to a request. Throws a `Refusal` with the server's own line, or that it cannot be reached. */
export async function call(path, options = {}, tries = 0) {
  const headers = new Headers(options.headers);
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.set("authorization", `Bearer ${token}`);
  let response;
  try {
    response = await (options.progress ? upload : fetch)(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "no response from the server; is it still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) {
    if (sessionStorage.getItem(TOKEN) === token) await askForToken(Boolean(token)); // or another request has asked
    return call(path, options, tries);
  }
  const wait = Number(response.headers.get("retry-after"));
  if ((response.status === 429 || response.status === 503) && wait && tries < MOST_TRIES) {
    await new Promise((done) => setTimeout(done, Math.min(wait, 10) * 1000));
    return call(path, options, tries + 1);
  }
  let line = `the server responded ${response.status}`;
  try {
    line = (await response.json()).detail ?? line;
  } catch { /* it is no JSON: a proxy's page */ }
  throw new Refusal(response.status, line);
}

/** `fetch` that tells its progress, 0..1, while a body is sent. */
function upload(path, { method, headers, body, signal, progress }) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open(method, path);
    headers.forEach((value, name) => request.setRequestHeader(name, value));
    request.responseType = "blob";
    request.upload.onprogress = ({ loaded, total }) => progress(total ? loaded / total : 0);
    request.onerror = () => fail(new TypeError("the connection failed"));
    request.onabort = () => fail(new DOMException("cancelled", "AbortError"));
    request.onload = () => {
      const given = ["retry-after", "content-type"].map((name) => [name, request.getResponseHeader(name)]);
      done(new Response(request.response, { status: request.status, headers: given.filter(([, value]) => value) }));
    };
    signal?.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

export const send = (path, body, signal) =>
  call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });

export const sendForm = (path, body, more = {}) => call(path, { method: "POST", body, ...more });

let asking = null;

/** Asks for a token; where one was wrong, it says so. */
function askForToken(wasWrong) {
  asking ??= new Promise((done) => {
    const dialog = document.getElementById("token-dialog");
    const field = document.getElementById("token");
    field.value = "";
    document.getElementById("token-wrong").hidden = !wasWrong;
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(TOKEN, field.value.trim());
      asking = null;
      done();
    }, { once: true });
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return asking;
}

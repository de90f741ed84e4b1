// Keeps the site in the browser, so that it works offline, and isolates it, so that the model may use several threads.

// Both are written when the site is made
const FILES = [];
const VERSION = "";
const CACHE = `chromatune-${VERSION}`;

self.addEventListener("install", () => self.skipWaiting());

self.addEventListener("activate", (event) =>
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys())
        if (name.startsWith("chromatune-") && name !== CACHE) await caches.delete(name);
      await self.clients.claim();
    })(),
  ),
);

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url),
    root = new URL("./", self.location).pathname;
  if (event.request.method !== "GET" || url.origin !== self.location.origin || !url.pathname.startsWith(root)) return;
  const name = url.pathname.slice(root.length) || "index.html";
  if (FILES.includes(name)) event.respondWith(answer(name));
});

/** A file as it was when the site was made: from the cache, or once from the host. */
async function answer(name) {
  const cache = await caches.open(CACHE),
    known = await cache.match(name);
  if (known) return isolated(known);
  const found = await fetch(name, { cache: "no-cache" });
  if (!found.ok) return found;
  await cache.put(name, found.clone());
  return isolated(found);
}

/** With the headers that let a page share memory among its threads. */
function isolated(answer) {
  const headers = new Headers(answer.headers);
  headers.set("cross-origin-opener-policy", "same-origin");
  headers.set("cross-origin-embedder-policy", "require-corp");
  headers.set("cross-origin-resource-policy", "same-origin");
  return new Response(answer.body, { status: answer.status, headers });
}

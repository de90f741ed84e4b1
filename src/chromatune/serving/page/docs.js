// The API's description, drawn by Swagger UI from files of this server; its requests go below the page's own path.
const base = new URL(".", location).href.replace(/\/$/, "");
const spec = await (await fetch("openapi.json")).json();
SwaggerUIBundle({ spec: { ...spec, servers: [{ url: base }] }, dom_id: "#api", deepLinking: true, validatorUrl: null });

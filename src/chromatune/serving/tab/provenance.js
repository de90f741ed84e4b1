// How a result was made, as an XMP packet: the same properties as `chromatune.images.provenance` writes.

const COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia";
const IPTC_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/";
const RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
const NAMESPACE = "https://chromatune.github.io/ns/provenance/1.0/";
const PACKET =
  '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">' +
  `<rdf:RDF xmlns:rdf="${RDF}">\n</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>`;
const END_OF_RDF = /<\/(?:[\w.-]+:)?RDF\s*>(?![\s\S]*<\/(?:[\w.-]+:)?RDF\s*>)/;
const ABOUT = /\brdf:about\s*=\s*("[^"<>]*"|'[^'<>]*')/;
const OLD_NOTE = new RegExp(`<rdf:Description[^<>]*${NAMESPACE.replaceAll(".", "\\.")}[^<>]*/>\\s*`, "g");
const OLD_SOURCE_TYPE = new RegExp(
  "\\s+Iptc4xmpExt:DigitalSourceType\\s*=\\s*(?:\"[^\"<>]*\"|'[^'<>]*')" +
    "|<Iptc4xmpExt:DigitalSourceType\\b[^<>]*(?:/>|>[^<>]*</Iptc4xmpExt:DigitalSourceType\\s*>)",
  "g",
);
const LONGEST_VALUE = 20_000,
  HINTS_DIGITS = 16;

/** The photo's own packet, or a new one, with a note of how the result was made. */
export async function provenance(packet, info, options, sources, hints) {
  const values = {
    Software: info.software,
    ColorsFrom: sources.join(", "),
    Model: info.name,
    ModelHash: info.model_hash,
    Prompt: options.prompt,
    Seed: String(options.seed),
    Options: JSON.stringify(options, (_, value) => (typeof value === "bigint" ? Number(value) : value)),
    Hints: hints?.marks?.length ? await hashOf(JSON.stringify(hints)) : "",
  };
  const attributes = Object.entries(values)
    .filter(([, value]) => value)
    .map(([name, value]) => `chromatune:${name}="${escaped(value)}"`);
  const base = (packet && END_OF_RDF.test(packet) ? packet : PACKET).replace(OLD_NOTE, "").replace(OLD_SOURCE_TYPE, "");
  const note =
    `<rdf:Description xmlns:rdf="${RDF}" rdf:about=${ABOUT.exec(base)?.[1] ?? '""'} ` +
    `xmlns:Iptc4xmpExt="${IPTC_EXTENSION}" Iptc4xmpExt:DigitalSourceType="${COMPOSITE}" ` +
    `xmlns:chromatune="${NAMESPACE}" ${attributes.join(" ")}/>\n`;
  const { index } = END_OF_RDF.exec(base);
  return base.slice(0, index) + note + base.slice(index);
}

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

function escaped(value) {
  const kept = value.replace(/[\u0000-\u001f\ufffe\uffff]/g, " ").toWellFormed?.() ?? value;
  return kept.slice(0, LONGEST_VALUE).replace(/[&<>"]/g, (each) => ENTITIES[each]);
}

async function hashOf(text) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  return [...digest]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("")
    .slice(0, HINTS_DIGITS);
}

"""How a result was made, in the result itself: IPTC's digital source type, and an XMP note that `exiftool` reads.

An XMP packet that the photo has is kept; the note is one more description in it (ISO 16684-1, section 7).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

# cv.iptc.org/newscodes/digitalsourcetype: the photo is not generated, its color is
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
IPTC_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACE = "https://chromatune.github.io/ns/provenance/1.0/"
LONGEST_PACKET_BYTES = 1 << 20
LONGEST_VALUE = 20_000  # characters

PACKET = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="' + RDF.encode() + b'">\n</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
)
END_OF_RDF = re.compile(rb"</(?:[\w.-]+:)?RDF\s*>(?!.*</(?:[\w.-]+:)?RDF\s*>)", re.DOTALL)
ABOUT = re.compile(rb"""\brdf:about\s*=\s*("[^"<>]*"|'[^'<>]*')""")
# What an earlier result says, or the photo: it is no longer so
OLD_NOTE = re.compile(rb"<rdf:Description[^<>]*" + re.escape(NAMESPACE.encode()) + rb"[^<>]*/>\s*")
OLD_SOURCE_TYPE = re.compile(
    rb"\s+Iptc4xmpExt:DigitalSourceType\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*')"
    rb"|<Iptc4xmpExt:DigitalSourceType\b[^<>]*(?:/>|>[^<>]*</Iptc4xmpExt:DigitalSourceType\s*>)"
)


@dataclass(frozen=True)
class Provenance:
    """How a result was made; all texts, empty where it is not known.

    Attributes:
        software: this program and its version.
        colors_from: "model", "hints", "reference", "finished picture" and the like, by commas.
        model: its name, without folders.
        model_hash: of its weights, see `chromatune.pipeline.weights_hash`.
        prompt: the instruction.
        seed: of the sampling.
        options: all options, as JSON.
        hints: the first 16 hexadecimal digits of the SHA-256 of the hints as JSON.
    """

    software: str = ""
    colors_from: str = ""
    model: str = ""
    model_hash: str = ""
    prompt: str = ""
    seed: str = ""
    options: str = ""
    hints: str = ""


def with_provenance(packet: bytes | None, provenance: Provenance) -> bytes:
    """Return an XMP packet with a note of how a result was made, in place of what an earlier one says.

    Args:
        packet: the photo's own, UTF-8; None for a new one.
        provenance: what to say.
    """
    base = packet if packet is not None and END_OF_RDF.search(packet) else PACKET
    base = OLD_SOURCE_TYPE.sub(b"", OLD_NOTE.sub(b"", base))
    about = ABOUT.search(base)
    values = {_property(name): value for name, value in asdict(provenance).items() if value}
    attributes = [f"chromatune:{name}={quoteattr(_printable(value))}" for name, value in values.items()]
    note = (
        f'<rdf:Description xmlns:rdf="{RDF}" rdf:about={about[1].decode("utf-8", "replace") if about else chr(34) * 2} '
        f'xmlns:Iptc4xmpExt="{IPTC_EXTENSION}" Iptc4xmpExt:DigitalSourceType="{COMPOSITE}" '
        f'xmlns:chromatune="{NAMESPACE}" {" ".join(attributes)}/>\n'
    )
    end = END_OF_RDF.search(base)
    assert end is not None
    return base[: end.start()] + note.encode() + base[end.start() :]


def provenance_of(packet: bytes | None) -> Provenance | None:
    """Return what an XMP packet says of how a result was made; None where it says nothing, or is damaged."""
    if packet is None or len(packet) > LONGEST_PACKET_BYTES or b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        return None
    try:
        root = ElementTree.fromstring(packet.decode("utf-8-sig").strip().strip("\0"))
    except (ElementTree.ParseError, ValueError):
        return None
    prefix, found = f"{{{NAMESPACE}}}", dict[str, str]()
    for element in root.iter():
        if element.tag.startswith(prefix):
            found[element.tag.removeprefix(prefix)] = element.text or ""
        found |= {k.removeprefix(prefix): value for k, value in element.attrib.items() if k.startswith(prefix)}
    values = {each.name: found[_property(each.name)] for each in fields(Provenance) if _property(each.name) in found}
    return Provenance(**values) if values else None


def _property(field: str) -> str:
    """Return the name of a field as XMP spells properties: "model_hash" is "ModelHash"."""
    return "".join(word.title() for word in field.split("_"))


def _printable(value: str) -> str:
    """Return a text that XML can hold."""
    kept = "".join(c if c >= " " and c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff" else " " for c in value)
    return kept[:LONGEST_VALUE]

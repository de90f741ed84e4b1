"""What a result says of how it was made, read back by exiftool where it is installed, and by an XML parser."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.images import Photo, Provenance, encode_photo, provenance_of, read_photo, with_provenance
from chromatune.images.metadata import LONGEST_JPEG_XMP

MADE = Provenance(
    software="ChromaTune 9",
    colors_from="model, hints",
    model="mini",
    model_hash="0123456789abcdef",
    prompt='warm <colors> & "more"\n\x00é\udcff',
    seed="3",
    options='{"seed": 3}',
    hints="fedcba9876543210",
)
READ = 'warm <colors> & "more"  é '  # what XML cannot hold is a space
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
OWN = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="uuid:1" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    b'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    b'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture">'
    b"<dc:creator><rdf:Seq><rdf:li>A. Smith</rdf:li></rdf:Seq></dc:creator></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def photo(xmp: bytes | None = None) -> Photo:
    gray = np.arange(48, dtype=np.uint8).reshape(6, 8)
    if xmp is None:
        return Photo(gray)
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "JPEG", xmp=xmp)
    return read_photo(file.getvalue())


def result(of: Photo, format: str, made: Provenance | None = MADE) -> bytes:
    return encode_photo(np.repeat(of.gray[..., None], 3, axis=2), of, format, made)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("xmp", [None, OWN])
def test_a_result_says_how_it_was_made(format: str, xmp: bytes | None) -> None:
    packet = read_photo(result(photo(xmp), format)).captions.xmp
    found = provenance_of(packet)
    assert found is not None and packet is not None
    assert found.prompt == READ
    assert (found.model, found.model_hash, found.options) == (MADE.model, MADE.model_hash, MADE.options)
    assert packet.count(b"DigitalSourceType=") == packet.count(SOURCE_TYPE.encode()) == 1
    assert (b"A. Smith" in packet) == (xmp is not None)
    assert provenance_of(read_photo(result(photo(xmp), format, None)).captions.xmp) is None


def test_a_result_of_a_result_says_what_was_last() -> None:
    first = with_provenance(OWN, MADE)
    second = with_provenance(first, Provenance(software="ChromaTune 10", model="other"))
    found = provenance_of(second)
    assert found == Provenance(software="ChromaTune 10", model="other")
    assert second.count(b"chromatune:Model") == 1 and b"A. Smith" in second


@pytest.mark.parametrize(
    "packet",
    [b"", b"RDF", b"<rdf:RDF></rdf:RDF>", b"\xff\xfe\x00RDF", b"</rdf:RDF>" * 3, OWN.replace(b"uuid:1", b"'>")],
)
def test_a_damaged_packet_is_no_obstacle(packet: bytes) -> None:
    provenance_of(packet)
    assert b"ChromaTune 9" in with_provenance(packet, MADE)


def test_entities_are_not_read() -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + with_provenance(None, MADE)
    assert provenance_of(bomb) is None


def test_a_packet_that_fills_the_segment_of_a_jpeg_stays() -> None:
    full = OWN.replace(b"A. Smith", b"A" * (LONGEST_JPEG_XMP - len(OWN)))
    assert read_photo(result(photo(full), "JPEG")).captions.xmp == full


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exiftool_reads_it(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format.lower()}"
    path.write_bytes(result(photo(OWN), format))
    done = subprocess.run(["exiftool", "-j", "-a", "-s", "-XMP:all", str(path)], capture_output=True, check=True)
    (facts,) = json.loads(done.stdout)
    assert facts["DigitalSourceType"] == SOURCE_TYPE
    assert (facts["Model"], facts["Seed"], facts["Creator"]) == ("mini", 3, "A. Smith")

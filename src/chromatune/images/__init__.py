"""Photos in, photos out: every file format, mode and depth becomes one `Photo`, and a result becomes a file again.

photo.py      Photo, which format a suffix means and what a format can hold
reading.py    any source ⇒ Photo, or a PhotoError of one line
decoding.py   file ⇒ decoded picture at its full depth, under a pixel limit, without warnings
pixels.py     modes, ranges and arrays ⇒ colour samples and alpha
profiles.py   ICC ⇒ sRGB
metadata.py   orientation, EXIF, resolution
encoding.py   (H, W, 3) samples and a Photo ⇒ bytes of a file, or a Pillow image
writing.py    a result ⇒ a file, whole or not at all
"""

from chromatune.images.encoding import encode_photo, to_pil
from chromatune.images.photo import IMAGE_SUFFIXES, Photo, format_for, suffix_for
from chromatune.images.reading import MAX_PIXELS, read_photo
from chromatune.images.writing import write_photo

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Photo",
    "encode_photo",
    "format_for",
    "read_photo",
    "suffix_for",
    "to_pil",
    "write_photo",
]

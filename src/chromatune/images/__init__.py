"""Photos in, photos out: every file format, mode and depth becomes one `Photo`, and a result becomes a file again.

photo_files.py  which format a suffix means, which files are results, and what lies in a folder
reading.py      Photo; any source ⇒ Photo, or a PhotoError of one line
opening.py      what a file is, which picture of several is the photo, and errors that name what cannot be read
headers.py      the size that a file's first bytes promise, and whether the file is longer than that explains
decoding.py     file ⇒ decoded picture, with the libraries silenced; 16-bit color; a JPEG without its end
tiff.py         pages of a TIFF, and samples that Pillow cannot hold
pixels.py       modes, ranges, arrays and profiles (ICC, gamma, inks, Lab) ⇒ sRGB samples and alpha
metadata.py     orientation, EXIF, resolution; captions: XMP, IPTC, comments and text
provenance.py   how a result was made, as XMP
writing.py      a result ⇒ a file, written completely or not at all; its bytes; a Pillow image
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

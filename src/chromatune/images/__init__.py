"""Photos in, photos out: every file format, mode and depth becomes one `Photo`, and a result becomes a file again.

photo_files.py     which format a suffix means, which files are results, what lies in a folder
photo.py           Photo, and what a format can hold
reading.py         any source ⇒ Photo, or a PhotoError of one line
identification.py  what a file is, and why it is none of ours
containers.py      which picture of a file of several is the photo
decoding.py        file ⇒ decoded picture, under a pixel limit, without a word of the libraries
deep.py            16-bit color of PNG, PNM, JPEG 2000, AVIF and HEIC
tiff.py            pages of a TIFF, and samples that Pillow cannot hold
pixels.py          modes, ranges and arrays ⇒ color samples and alpha
profiles.py        ICC, gamma, inks and Lab ⇒ sRGB
metadata.py        orientation, EXIF, resolution
captions.py        XMP, IPTC, comments and text
encoding.py        (H, W, 3) samples and a Photo ⇒ bytes of a file, or a Pillow image
writing.py         a result ⇒ a file, whole or not at all
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

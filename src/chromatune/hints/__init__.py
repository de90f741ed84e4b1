"""Color by hand: what a person says of a photo's colors, and the chroma that comes of it.

hints.py       strokes, points and painted layers, checked; from and to JSON
layer_files.py layers in a folder
drawing.py     hints ⇒ colors and weights on a small grid
similarity.py  which cells of a photo look alike to the photo encoder
reference.py   cells of a photo in color that look like cells of the photo
palette.py     distinct colors out of many
correction.py  the model's chroma and hints ⇒ the chroma that is put onto the photo
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

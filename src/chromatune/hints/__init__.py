"""Color by hand: a person's hints of a photo's colors, and the chroma that they lead to.

hints.py       strokes, points and painted layers, checked; from and to JSON
drawing.py     the same, drawn on a small grid
reference.py   cells of photos that look alike to the photo encoder, in one photo and in a reference photo
correction.py  the model's chroma and hints ⇒ the chroma that is put onto the photo
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Colour by hand: what a person says of a photo's colours, and the chroma that comes of it.

hints.py       strokes, points and painted layers, checked; from and to JSON
drawing.py     hints ⇒ colours and weights on a small grid
similarity.py  which cells of a photo look alike to the photo encoder
correction.py  the model's chroma and hints ⇒ the chroma that is put onto the photo
"""

from chromatune.hints.correction import HintedChroma
from chromatune.hints.hints import Hints, Layer, Stroke, parse_point

__all__ = ["HintedChroma", "Hints", "Layer", "Stroke", "parse_point"]

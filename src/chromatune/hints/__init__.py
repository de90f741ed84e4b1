"""Colour by hand: what a person says of a photo's colours, and the chroma that comes of it.

hints.py       strokes, points and painted layers, checked; from and to JSON
layer_files.py layers in a folder
drawing.py     hints ⇒ colours and weights on a small grid
similarity.py  which cells of a photo look alike to the photo encoder
reference.py   cells of a photo in colour that look like cells of the photo
palette.py     distinct colours out of many
correction.py  the model's chroma and hints ⇒ the chroma that is put onto the photo
"""

from chromatune.hints.correction import HintedChroma
from chromatune.hints.hints import Colour, Hints, Layer, Stroke, parse_point
from chromatune.hints.layer_files import LAYER_SUFFIXES, list_layers
from chromatune.hints.reference import Reference, check_reference, make_reference

__all__ = [
    "LAYER_SUFFIXES",
    "Colour",
    "HintedChroma",
    "Hints",
    "Layer",
    "Reference",
    "Stroke",
    "check_reference",
    "list_layers",
    "make_reference",
    "parse_point",
]

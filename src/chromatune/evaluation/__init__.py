"""Measuring colorizers: one protocol, one row a method, every choice named.

settings.py     what is measured and how: frozen, validated
protocol.py     which photos are measured, which are skipped and why; methods, their rows, the files of other tools
squares.py      what is compared of a photo: a small square, made as ours are or as published protocols make it
metrics.py      metrics on pairs of 8-bit photos, pure functions
artifacts.py    what goes wrong: color bleeding, skin tone, and where a face is
perceptual.py   LPIPS and FID: networks given by path, features on disk, the Fréchet distance
scoring.py      photos through every method, scored while the model works; hints of the truth; what a method costs
summary.py      scores ⇒ rows with bootstrap intervals and differences, as data and as tables
report.py       plots, the worst, median and best photos of each row, and all of it as one HTML page
evaluation.py   one evaluation, from its settings to its tables and its page
benchmark.py    published sets of photos and videos, and published rows and their protocol beside ours
videos.py       colorizings of a video in color, frame by frame and through time
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

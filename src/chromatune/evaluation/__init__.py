"""Measuring colorizers: one protocol, one row a method, every choice named.

settings.py     what is measured and how: frozen, validated
protocol.py     which photos are measured, which are left out and why, and all else that decides the numbers
methods.py      methods and their rows; the files of another tool's results
metrics.py      metrics on pairs of 8-bit photos, pure functions
signatures.py   what goes wrong: color bleeding, skin tone, and where a face is
perceptual.py   LPIPS and FID: networks given by path, features on disk, the Fréchet distance
scores.py       photos through every method, scored while the model works
cost.py         parameters, U-Net evaluations, FLOPs, seconds, memory
bootstrap.py    intervals on means and on differences of means
summary.py      scores ⇒ rows with intervals and differences, as data and as tables
pictures.py     plots, and the worst, median and best photos of each row
page.py         all of it as one HTML page that says first who is better by how much
evaluation.py   one evaluation, from its settings to its tables and its page
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

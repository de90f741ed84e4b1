"""Pairs for training: color photos, the gray photos they could have come from, and instructions.

sources.py        a path ⇒ Source: which layout it is, and its photos, none of them opened yet
items.py          PhotoItem and Source, the one face of all layouts
folders.py        folders of photos, LFW, FFHQ
imdb_wiki.py      IMDB-WIKI's .mat files
mat_files.py      a struct in a MATLAB file, read by a process of its own
hugging_face.py   data sets with InstructPix2Pix columns
photo_tables.py   tables with the photos' paths and instructions
splits.py         train and validation halves that share no person
usable.py         which photos can be trained with, and a split that has one to validate on
pairs.py          crop, flip, color and gray half of a pair
grays.py          how a color scene becomes a gray photo
prompt_sets.py    instructions by name, from a file, or the photos' own
inspection.py     what a source holds, and a contact sheet of it
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

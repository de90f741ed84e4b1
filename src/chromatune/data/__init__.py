"""Pairs for training: color photos, the gray photos they could have come from, and instructions.

items.py        PhotoItem and Source: what every layout of photos becomes
sources.py      a path ⇒ Source; folders of photos, LFW, FFHQ
tables.py       tables with the photos' paths and instructions; Hugging Face data sets
imdb_wiki.py    IMDB-WIKI by its .mat files, which a process of its own reads
streams.py      photos in shards, tar files or a Hugging Face data set, of which nothing is listed
prompt_sets.py  instructions by name, from a file, or the photos' own
buckets.py      the sizes that photos of any aspect ratio are trained at
pairs.py        crop, flip, color and gray half of a pair; how a color scene becomes a gray photo
splits.py       which photos can be trained with; train and validation halves that share no person
inspection.py   what a source holds, and a contact sheet of it
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Models: a diffusers InstructPix2Pix pipeline folder, opened, checked, used and written.

names.py     a name ⇒ files and what is known of the model; reads no weights, imports no torch
checks.py    a stranger's files and settings, judged before any class is built
loading.py   files ⇒ parts ⇒ Bundle, the one frozen object that the rest of the package sees
latents.py   the border between pixels and latents
text.py      instructions ⇒ embeddings
saving.py    parts ⇒ a folder, whole or not at all, and the hub
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

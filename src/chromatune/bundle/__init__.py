"""Models: a diffusers InstructPix2Pix pipeline folder, opened, checked, used and written.

names.py     a name ⇒ files and what is known of the model; reads no weights, imports no torch
checks.py    a stranger's files and settings, judged before any class is built
loading.py   files ⇒ parts ⇒ Bundle, the one frozen object that the rest of the package sees
latents.py   the border between pixels and latents
text.py      instructions ⇒ embeddings
saving.py    parts ⇒ a folder, whole or not at all, and the hub
"""

from chromatune.bundle.loading import Bundle, load_bundle
from chromatune.bundle.names import MODELS_DIR, ModelInfo, available_models, model_info

__all__ = ["MODELS_DIR", "Bundle", "ModelInfo", "available_models", "load_bundle", "model_info"]

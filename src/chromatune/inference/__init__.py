"""The model pass: greys at the model's own size and resolved options ⇒ small RGB, whatever computes it.

model_pass.py   what every model pass offers, and which maker opens a model
torch_pass.py   by torch, over any diffusers InstructPix2Pix folder
sampling.py     torch's loop over a diffusers scheduler
"""

from chromatune.inference.model_pass import ModelPass, open_pass

__all__ = ["ModelPass", "open_pass"]

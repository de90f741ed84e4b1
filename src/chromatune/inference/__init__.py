"""The model pass: greys at the model's own size and resolved options ⇒ small RGB, whatever computes it.

model_pass.py   what every model pass offers, and how a model is opened
runtimes.py     which library runs a model
onnx_pass.py    by ONNX Runtime, over exported graphs
torch_pass.py   by torch, over any diffusers InstructPix2Pix folder
sampling.py     torch's branches and U-Net for the loop of schedules.py
schedules.py    timesteps and steps from noise to latents
guidance.py     weights of the U-Net's answers
noise.py        a seed's noise
export.py       a model ⇒ a folder with ONNX graphs, checked against torch
wording.py      what is told of instructions that are cut
"""

from chromatune.bundle.onnx_files import threads
from chromatune.inference.model_pass import ModelPass, open_pass, usual_workers

__all__ = ["ModelPass", "open_pass", "threads", "usual_workers"]

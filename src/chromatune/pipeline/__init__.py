"""Models: a diffusers InstructPix2Pix pipeline folder, opened, checked, run and written.

model_kinds.py    a name ⇒ which kind of model, its files, and what is known of it
model_files.py    files of pipelines; reads no weights, imports no torch
checks.py         untrusted files and settings, checked before any class is built
onnx_checks.py    the same of ONNX graphs, and whether they fit each other
onnx_operators.py operators that a graph may have: the sizes of what each makes, and what it takes
onnx_budget.py    what a graph takes, known before it is opened and before each pass
schedules.py      noise, timesteps, steps and guidance, the same for both runtimes and for training
instructions.py   instructions in any words ⇒ those that a model was taught; words.toml has the others
truncation.py     prompts ⇒ tokens without torch, and warnings of what is cut off
backend.py        what every backend offers: gray photos ⇒ small RGB
onnx_backend.py   graphs ⇒ a backend by ONNX Runtime
colorizer_files.py    anyone's colorizer: its network's file, and the description beside it
colorizer_graph.py    its ONNX graph ⇒ what it takes and gives, in which units
colorizer_backend.py  its network ⇒ a backend
ddcolor_checkpoint.py the same of DDColor's weights, by torch
edit_classes.py   edit models: which diffusers pipelines are known, what each takes, and which classes they consist of
edit_files.py     an edit model's folder ⇒ what is known of it
edit_backend.py   the same ⇒ a backend by torch: the picture redrawn, and only its colors used
shared_encoder.py the photo encoder of `mini`, for backends without one
blend.py          two backends as one
runtimes.py       which library runs a model, and the backend that it opens
loading.py        files ⇒ parts ⇒ Pipeline, the one frozen object that the rest of the package uses
text.py           prompts ⇒ embeddings
latents.py        the border between pixels and latents
photo_encoder.py  a pretrained classifier's features of the photo, for the U-Net
torch_backend.py  a Pipeline ⇒ a backend by torch, with sampling over any diffusers scheduler
training_data.py  photos that a model has seen, listed in its folder
saving.py         parts ⇒ a folder, whole or not at all, and the hub
onnx_export.py    a model ⇒ a folder with ONNX graphs
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Training: InstructPix2Pix models fine-tuned on photos, and what is written about it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

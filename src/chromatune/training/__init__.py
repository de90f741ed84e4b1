"""Training: InstructPix2Pix models fine-tuned on photos, and what is written about it."""

"""Training: InstructPix2Pix models fine-tuned on photos, and what is written about it.

- `settings`: how to fine-tune, with `presets.toml`.
- `initial_model`: the model that a run starts from, and which of its weights are trained.
- `run`: `train`, from photos and a model to a better model; the folder of a run, and all that its loop works with.
- `learner`: losses, the owner of a run's weights, the optimizer.
- `training_loop`: the loop: status, validation, checkpoint, step.
- `encoding`: photos as latents, kept on disk (`latent_cache`), as prompts' embeddings are (`embeddings`); all processes
  make them together, on machines without a common disk too (`machines`).
- `dataset`: which pair is at each position of a run, and the batches made of them.
- `streaming`: the same for a stream of photos, of which nothing is listed or kept.
- `memory`: what a run takes of memory and disk, before it begins.
- `validation`: losses and results on held-out photos.
- `comparison`: the result against `mini` as it is, on the same held-out photos.
- `checkpoints`: what an update changes, on disk.
- `measurements`: rows of `metrics.jsonl`, and trackers such as TensorBoard.
- `report`: curves and the page of a run.
- `saving`: the finished model with its card.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

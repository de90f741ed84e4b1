"""The order of training: which pair, prompt, timestep and noise stand at each position of the run.

Everything at position p depends on the seed and p alone. So a run resumes anywhere without replaying what came before,
processes never share noise, and two of them draw what one would with twice the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from chromatune.errors import DataError, PhotoError
from chromatune.pipeline import draw_latents, to_pixels, tokenize
from chromatune.training.latent_cache import LatentCache, cached_pair
from chromatune.training.learner import Batch, draw_noise
from chromatune.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


class PairStream:
    """Batches of a run by number.

    `prompts` are the instructions to draw from, or each photo's own by its key.
    """

    def __init__(
        self,
        cache: LatentCache,
        prompts: Sequence[str] | Mapping[str, str],
        tokenizer: CLIPTokenizer,
        scaling_factor: float,
        num_train_timesteps: int,
        settings: TrainSettings,
    ) -> None:
        self.cache, self.settings = cache, settings
        self.scaling_factor, self.last = scaling_factor, num_train_timesteps - 1
        own = prompts if isinstance(prompts, Mapping) else None
        prompts = sorted(set(own.values())) if own is not None else list(prompts)
        self.own_prompt = None if own is None else [prompts.index(own[item.key]) for item in cache.items]
        self.prompt_count = len(prompts)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))  # the last epoch asked for, and its order
        # The empty prompt, for dropped text, comes last.
        self.tokens = tokenize(tokenizer, [*prompts, ""])  # of P + 1 prompts

    def photo_at(self, position: int) -> int:
        """Index of the photo at a position: each photo once an epoch, in an order of the epoch's own."""
        epoch, index = divmod(position, len(self.cache.items))
        if epoch != self._order[0]:  # drawn once an epoch: a batch asks for each of its positions
            rng = np.random.default_rng((self.settings.seed, 1, epoch))
            self._order = epoch, rng.permutation(len(self.cache.items))
        return int(self._order[1][index])

    def batch(self, number: int, rank: int = 0, ranks: int = 1) -> Batch:
        """Batch `number` (passes, not updates) of process `rank` of `ranks`, on the CPU.

        Raises:
            DataError: a photo that could be read when the run began cannot be read any more.
        """
        size = self.settings.batch
        first = (number * ranks + rank) * size
        draws = [self._draw(position) for position in range(first, first + size)]
        rows = [int(self.cache.rows[photo]) + variant for photo, variant, *_ in draws]
        noise = torch.stack([draw_noise(seed, self._latent_shape) for *_, seed in draws])  # (B, 8, h, w)
        moments = torch.from_numpy(np.stack([self.cache.moments[row] for row in rows])).float()
        condition = torch.from_numpy(np.stack([self.cache.condition[row] for row in rows])).float()
        grays = self.cache.grays
        keep = torch.tensor([not no_image for *_, no_image, _ in draws])
        chosen, prompt_of = np.unique([prompt for _, _, prompt, *_ in draws], return_inverse=True)
        return Batch(
            latents=draw_latents(moments, noise[:, 4:], self.scaling_factor),
            condition=condition * keep.view(-1, 1, 1, 1),
            noise=noise[:, :4],
            timesteps=torch.tensor([timestep for _, _, _, timestep, *_ in draws]),
            tokens=self.tokens.rows(torch.from_numpy(chosen)),
            prompt_of=torch.from_numpy(prompt_of),
            shown=keep,
            truth=self._truth(draws),
            grays=None if grays is None else torch.from_numpy(np.stack([grays[row] for row in rows])),
        )

    @property
    def _latent_shape(self) -> tuple[int, ...]:
        return (8, *self.cache.condition.shape[2:])  # 4 of noise, 4 to sample the posterior with

    def _draw(self, position: int) -> tuple[int, int, int, int, bool, int]:
        """Photo, variant, prompt, timestep, whether the photo is dropped, and the seed of its noise."""
        settings, rng = self.settings, np.random.default_rng((self.settings.seed, 2, position))
        photo = self.photo_at(position)
        variant, prompt = int(rng.integers(self.cache.variants)), int(rng.integers(self.prompt_count))
        prompt = prompt if self.own_prompt is None else self.own_prompt[photo]
        timestep, at_last = int(rng.integers(self.last + 1)), rng.random() < settings.last_share
        # InstructPix2Pix's one draw for three kinds of dropout (arXiv 2211.09800, section 3.2.1).
        u, p = rng.random(), settings.dropout
        prompt = self.prompt_count if u < 2 * p else prompt
        return (
            photo,
            variant,
            prompt,
            self.last if at_last else timestep,
            bool(p <= u < 3 * p),
            int(rng.integers(2**63)),
        )

    def _truth(self, draws: list[tuple[int, int, int, int, bool, int]]) -> torch.Tensor | None:
        if self.settings.lab_weight == 0:
            return None
        truths = []
        for photo, variant, *_ in draws[: self.settings.lab_photos]:
            item = self.cache.items[photo]
            try:
                truths.append(cached_pair(item, variant, self.cache.size_px, self.settings)[1])
            except PhotoError as error:
                raise DataError(f"{error}; it was readable when the run began: put it back, then resume") from None
        return to_pixels(np.stack(truths))

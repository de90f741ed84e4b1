"""A loss that is not finite stops a run before the update, and no GPU waits for the look at it."""

from __future__ import annotations

import math

import torch

from chromatune.errors import ChromaTuneError


class LossWatch:
    """Stops a run before the update where the loss is no number, without holding a GPU up.

    The loss is copied to the host right after the forward pass and read once the backward pass is queued behind it.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.host = torch.zeros((), pin_memory=self.on_gpu)
        self.copied = torch.cuda.Event() if self.on_gpu else None

    def copy(self, loss: torch.Tensor) -> None:
        """Starts the copy."""
        self.host.copy_(loss.detach(), non_blocking=True)
        if self.copied is not None:
            self.copied.record()

    def check(self, step: int) -> None:
        """Waits for the copy alone, and looks at it.

        Raises:
            ChromaTuneError: the loss is infinite or not a number.
        """
        if self.copied is not None:
            self.copied.synchronize()
        loss = float(self.host)
        if not math.isfinite(loss):
            raise ChromaTuneError(
                f"the loss is {loss} at step {step}; nothing was updated and the last checkpoint is good: lower lr, "
                "or train with precision=no"
            )

"""A discriminator of chroma: tells a photo's own 16 × 16 chroma from the U-Net's, given luma and the photo's features.

The mean of the plausible colors is dull; what is real is not. Its loss is hinged, its real side has an R1 penalty, and
its pull on the U-Net is a fixed share of the error's, so that it can be kept weak.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from autoencoder import chroma_latents, luma_latents
from loop import Machine, average_gradients
from torch.nn.utils.parametrizations import spectral_norm

R1_WEIGHT = 1.0
R1_EVERY = 8  # steps: lazily, and as many times as strong
WIDTHS = (64, 128, 128, 128)
FEATURE_WIDTH = 32  # of the photo encoder's features, after a projection
LUMA_CHANNELS = 16  # 2 × 2 latents of four channels


class Critic(torch.nn.Module):
    """(B, 2, g, g) chroma, (B, 4, 2 g, 2 g) luma latents, (B, C, g, g) features -> (B, 1, g, g) logits, one a place."""

    def __init__(self, feature_channels: int) -> None:
        super().__init__()
        self.project = spectral_norm(torch.nn.Conv2d(feature_channels, FEATURE_WIDTH, 1)) if feature_channels else None
        into = 2 + LUMA_CHANNELS + (FEATURE_WIDTH if feature_channels else 0)
        layers: list[torch.nn.Module] = []
        for number, width in enumerate(WIDTHS):
            reach = 1 if number == 0 else 2
            conv = torch.nn.Conv2d(into, width, 3, padding=reach, dilation=reach)
            layers += [spectral_norm(conv), torch.nn.LeakyReLU(0.2)]
            into = width
        self.layers = torch.nn.Sequential(*layers, spectral_norm(torch.nn.Conv2d(into, 1, 1)))

    def forward(self, chroma: torch.Tensor, luma: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        given = [chroma, F.pixel_unshuffle(luma, 2)]
        if self.project is not None and features is not None:
            given.append(self.project(features))
        return self.layers(torch.cat(given, dim=1))


class Adversary:
    """A critic and its optimizer, trained along with the U-Net.

    Args:
        feature_channels: of the photo encoder at stride 16; 0 without one.
        settings: `adversarial_share`, `critic_lr`, `critic_alone` of the stage.
        machine: where it is trained; in float32, it is small.
    """

    def __init__(self, feature_channels: int, settings: dict[str, Any], machine: Machine) -> None:
        self.critic = Critic(feature_channels).to(machine.device)
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=settings["critic_lr"], betas=(0.0, 0.99))
        self.share, self.alone, self.steps = settings["adversarial_share"], settings["critic_alone"], 0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a checkpoint's."""
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]

    def step(
        self, made: torch.Tensor, latents: torch.Tensor, condition: torch.Tensor, features: torch.Tensor | None,
        error: torch.Tensor, prediction: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
        """Trains the critic on a batch; returns what it adds to the U-Net's loss, 0 while it learns alone.

        Args:
            made: (B, 2, g, g) chroma by the U-Net, with gradients.
            latents: (B, 4, 2 g, 2 g) of the color photos.
            condition: (B, 4, 2 g, 2 g) of the gray photos.
            features: (B, C, g, g) of the photo encoder; None without one.
            error: the U-Net's loss so far, a scalar.
            prediction: (N, 4, 2 g, 2 g) by the U-Net, of which the first B give `made`: the pull is weighed by its
                gradient on their chroma, against the error's.
        """
        luma = luma_latents(condition)
        features = None if features is None else features.detach().float()
        real = chroma_latents(latents).requires_grad_(True)
        on_real, on_made = self.critic(real, luma, features), self.critic(made.detach(), luma, features)
        loss = F.relu(1 - on_real).mean() + F.relu(1 + on_made).mean()
        if self.steps % R1_EVERY == 0:
            (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            loss = loss + R1_EVERY * R1_WEIGHT / 2 * slope.square().sum(dim=(1, 2, 3)).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.critic)
        self.optimizer.step()
        self.steps += 1
        logged = {"critic": loss.detach(), "on_real": on_real.detach().mean(), "on_made": on_made.detach().mean()}
        if self.steps <= self.alone:
            return torch.zeros_like(error), logged
        self.critic.requires_grad_(False)
        pull = -self.critic(made, luma, features).mean()
        self.critic.requires_grad_(True)
        on_chroma = [
            chroma_latents(torch.autograd.grad(each, prediction, retain_graph=True)[0][: len(made)]).norm()
            for each in (error, pull)
        ]
        return self.share * (on_chroma[0] / on_chroma[1].clamp_min(1e-12)).detach() * pull, logged

"""Does training calculate what it says? Three updates again with stock diffusers and plain torch, and the differences.

    python -m studies.independent_training --work DIR [--model mini-base]

For the presets `paper` and `best`: the package trains on drawings for three updates, which leaves the losses in its
metrics and the weights and their EMA in a checkpoint. `recalculate` starts from the same folder of weights and from the
same batches (latents, noise, timesteps, tokens: all that chance decides), and shares no code with the package. Prints
the largest differences; exits with 1 where a loss differs by more than 1e-5, or a weight or its EMA by more than 1e-6.
For a CPU: a GPU adds in another order, and Adam's first updates have a gradient's sign, however small it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from diffusers import DDPMScheduler, StableDiffusionInstructPix2PixPipeline
from safetensors.torch import load_file
from skimage.color.colorconv import xyz_from_rgb
from torch.nn import functional

from chromatune.data import open_source
from chromatune.pipeline import find_pipeline
from chromatune.training import TrainSettings, resolve_settings, train
from chromatune.training.checkpoints import STATE_FILE
from chromatune.training.dataset import Batch, BatchSampler
from chromatune.training.encoding import open_cache
from chromatune.training.run import plan_run
from studies.same_bytes import write_drawings

PRESETS = ("paper", "best")
UPDATES = 3
BARS = {"loss": 1e-5, "weights": 1e-6, "ema": 1e-6}  # largest absolute differences that pass
WHITE_D65 = (0.95047, 1.0, 1.08883)
ZERO_SNR = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "beta_schedule": "scaled_linear"}
ZERO_SNR |= {"beta_start": 0.00085, "beta_end": 0.012}


class Updates(NamedTuple):
    """What came of some updates: the mean loss of each, and the weights and their EMA after the last."""

    losses: list[float]
    weights: list[torch.Tensor]
    ema: list[torch.Tensor]


# ---------------------------------------------------------------------------------------------------------------------
# The independent calculation


def recalculate(folder: Path, batches: Sequence[Sequence[Batch]], settings: TrainSettings) -> Updates:
    """Train the U-Net of a pipeline's folder on batches, the passes of each update in a list of their own."""
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, safety_checker=None)
    unet, kept = pipeline.unet.train(), pipeline.vae.requires_grad_(False)
    for network in (unet, kept):  # the order in which convolutions add, which Adam's first updates hang on
        network.to(memory_format=torch.channels_last)
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config, **(ZERO_SNR if settings.zero_terminal_snr else {}))
    weights, decay = list(unet.parameters()), settings.weight_decay
    optimizer = torch.optim.AdamW(weights, betas=(settings.beta1, settings.beta2), weight_decay=decay)
    ema, losses = [weight.detach().clone() for weight in weights], []
    for update, passes in enumerate(batches):
        means = []
        for batch in passes:
            noisy = schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
            with torch.no_grad():
                text = pipeline.text_encoder(batch.tokens.ids)[0][batch.prompt_of]
            answer = unet(torch.cat([noisy, batch.condition], 1), batch.timesteps, text).sample
            of_v = schedule.config.prediction_type == "v_prediction"
            truth = schedule.get_velocity(batch.latents, batch.noise, batch.timesteps) if of_v else batch.noise
            loss = functional.mse_loss(answer, truth)
            if batch.truth is not None:  # the paper's second loss, for the first pairs; v alone, as in `best`
                first, share = len(batch.truth), schedule.alphas_cumprod[batch.timesteps].view(-1, 1, 1, 1)
                clean = (share.sqrt() * noisy - (1 - share).sqrt() * answer)[:first]
                rgb = kept.decode(clean / kept.config.scaling_factor).sample * 0.5 + 0.5
                loss = loss + settings.lab_weight * lab_error(rgb, batch.truth)
            (loss / len(passes)).backward()
            means.append(loss.item() / len(passes))
        torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
        optimizer.param_groups[0]["lr"] = settings.lr * min(1.0, (update + 1) / max(1, settings.warmup))
        optimizer.step()
        optimizer.zero_grad()
        kept_share = min(settings.ema, (1 + update) / (10 + update)) if update else 0.0
        ema = [kept_share * mean + (1 - kept_share) * new.detach() for mean, new in zip(ema, weights, strict=True)]
        losses.append(sum(means))
    return Updates(losses, [weight.detach() for weight in weights], ema)


def lab_error(rgb: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean squared CIELAB distance in units of 25, and of what leaves the gamut; (B, 3, H, W) sRGB 0..1 twice."""
    distance = (lab_of(rgb.clamp(1e-3, 1)) - lab_of(truth.clamp(1e-3, 1))) / 25
    return distance.square().sum(1).mean() + (rgb - rgb.clamp(0, 1)).square().mean()


def lab_of(rgb: torch.Tensor) -> torch.Tensor:
    """CIELAB under D65, from (B, 3, H, W) sRGB above 0 to 1, by IEC 61966-2-1 and CIE 15."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("ij,bjhw->bihw", torch.tensor(xyz_from_rgb).float(), linear)
    xyz = xyz / torch.tensor(WHITE_D65).view(1, 3, 1, 1)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


# ---------------------------------------------------------------------------------------------------------------------
# The package's own, and the differences


def differences(
    preset: str, model: str, photos: Path, work: Path, overrides: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Train for three updates with the package, and again without it; return the largest differences.

    Args:
        preset: whose losses, rates and averages are compared; its photos are at most those of `photos`.
        model: folder or name of the initial model.
        photos: a folder of color photos.
        work: folder for the run and its latents.
        overrides: settings other than the preset's.
    """
    few = {"max_steps": UPDATES, "log_every": 1, "checkpoint_every": UPDATES, "validate_every": UPDATES}
    few |= {"validation_photos": 2, "validation_steps": 1}
    settings = resolve_settings(preset, None, few | {"precision": "no"} | dict(overrides or {}))
    source = open_source(photos)
    rows: list[dict[str, Any]] = []
    train(source, model, settings, work / preset, on_row=rows.append, cache_dir=work / "latents")
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    state = load_file(work / preset / "checkpoints" / f"step-{UPDATES:06d}" / STATE_FILE)

    start = plan_run(source, model, settings)
    pipeline = start.pipeline
    cache = open_cache(work / "latents", start.split.train, pipeline.vae, pipeline.info.size_px, settings)
    scaling, timesteps = pipeline.vae.config.scaling_factor, len(pipeline.scheduler.alphas_cumprod)
    sampler = BatchSampler(cache, start.prompts, pipeline.tokenizer, scaling, timesteps, settings)
    passes = settings.accumulation
    batches = [[cast("Batch", sampler.batch(update * passes + k)) for k in range(passes)] for update in range(UPDATES)]
    ours = recalculate(find_pipeline(model).pipeline_folder, batches, settings)
    weights, ema = ([state[f"{name}.{i}"] for i in range(len(ours.weights))] for name in ("weights", "averages"))
    return {
        "loss": _largest([torch.tensor(losses, dtype=torch.float64)], [torch.tensor(ours.losses, dtype=torch.float64)]),
        "weights": _largest(weights, ours.weights),
        "ema": _largest(ema, ours.ema),
    }


def _largest(theirs: Sequence[torch.Tensor], ours: Sequence[torch.Tensor]) -> float:
    """Return the largest absolute difference; NaN where one is."""
    return float(torch.stack([(a - b).abs().max() for a, b in zip(theirs, ours, strict=True)]).max())


def main() -> int:
    """Compare both presets, print a line for each difference, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the drawings and the runs; new")
    parser.add_argument("--model", default="mini-base")
    arguments = parser.parse_args()
    write_drawings(arguments.work / "photos")
    failed = False
    for preset in PRESETS:
        found = differences(preset, arguments.model, arguments.work / "photos", arguments.work)
        for name, difference in found.items():
            passes = difference <= BARS[name]
            failed = failed or not passes
            verdict = "within" if passes else "BEYOND"
            print(f"{preset:6} {name:8} {difference:.1e}  {verdict} {BARS[name]:.0e}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

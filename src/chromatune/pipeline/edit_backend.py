"""The backend of edit models: the gray photo and an instruction ⇒ the picture redrawn in color, put onto the gray.

They redraw all of the picture, and nothing of that is used but its colors. Their parts are built one by one, from
classes that are known (`edit_classes`), and from safetensors alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from chromatune import color
from chromatune.errors import MissingExtraError, ModelError, PhotoError
from chromatune.options import ResolvedOptions
from chromatune.pipeline.backend import BackendOutput, Features
from chromatune.pipeline.checks import reason_of, weight_files
from chromatune.pipeline.edit_classes import NETWORKS, check_edit_part
from chromatune.pipeline.edit_files import EditFiles, read_edit_info
from chromatune.pipeline.loading import edit_part_class, open_part, quiet_libraries, torch_device
from chromatune.pipeline.model_files import has_torch
from chromatune.pipeline.shared_encoder import ENCODER_MULTIPLE_PX, shared_features

if TYPE_CHECKING:
    import torch

ROOM = 1.2  # of the weights' size: what a pass takes beside them on a GPU


class EditBackend:
    """An opened edit model as a `Backend`."""

    runtime = "torch"
    batches = False  # some of these pipelines take one photo alone
    concurrent = False  # a pipeline keeps the state of its pass
    multiple_px = ENCODER_MULTIPLE_PX  # their own are 8, 16 and 32

    def __init__(self, files: EditFiles, pipeline: Any) -> None:
        """Hold an opened diffusers pipeline."""
        self.info, self._kind, self._pipeline = read_edit_info(files), files.kind, pipeline
        self._turn = Lock()

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """Return a line that names the options that it does not follow."""
        found = self.info.unfollowed(options)
        if self._kind.size == "own" and options.size_px != self.info.size_px:
            found += (f"{self.info.name} chooses its own size, about a megapixel; --size changes nothing in it",)
        return found

    def features(self, grays: np.ndarray) -> Features | None:
        """Return the features of `mini`'s photo encoder; see `Backend.features`."""
        return shared_features(grays)

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        """Return the model's own RGB; see `Backend`.

        Raises:
            ModelError: the model gives values that are not numbers, or one of its settings makes no sense.
        """
        rgb = np.stack([self._colorized(gray, each) for gray, each in zip(grays, options, strict=True)])
        return BackendOutput(rgb, self.features(grays) if with_features else None)

    def _colorized(self, gray: np.ndarray, options: ResolvedOptions) -> np.ndarray:
        """(h, w) float32 luma 0..1 -> (h, w, 3) float32 sRGB."""
        import torch

        picture = Image.fromarray(np.rint(np.clip(gray, 0, 1) * 255).astype(np.uint8)).convert("RGB")
        try:
            with self._turn, torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the libraries' own
                (drawn,) = self._pipeline(image=picture, **self._arguments(gray, options)).images
        except Exception as error:  # what the libraries raise on a part that does not fit the others is of any kind
            if isinstance(error, MemoryError) or "memory" in str(error).lower():  # nothing is wrong with the model
                raise
            raise ModelError(f"{self.info.name} cannot be used ({reason_of(error)}); give another model") from error
        rgb = np.asarray(drawn, np.float32)
        if rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ModelError(
                f"{self.info.name} returned an output of shape {rgb.shape}, not a picture; choose another model"
            )
        if not np.isfinite(rgb).all():
            raise ModelError(f"{self.info.name} returned NaN or infinite values; try another seed, or --device cpu")
        return _aligned(gray, rgb)

    def _arguments(self, gray: np.ndarray, options: ResolvedOptions) -> dict[str, Any]:
        """Return the arguments of the pipeline's call, by its own names."""
        import torch

        kind = self._kind
        given: dict[str, Any] = dict(kind.settings) | {
            "prompt": options.prompt,
            "num_inference_steps": options.steps,
            "generator": torch.Generator("cpu").manual_seed(options.seed),  # the same noise on all devices
            "output_type": "np",
        }
        if kind.guidance:
            given[kind.guidance] = options.guidance_scale
        if "image_guidance_scale" in kind.follows:
            given["image_guidance_scale"] = options.image_guidance_scale
        if options.negative_prompt and "negative_prompt" in kind.follows:
            given["negative_prompt"] = options.negative_prompt
        if kind.size == "given":
            given |= {"height": gray.shape[0], "width": gray.shape[1]}
        if kind.settings.get("_auto_resize") is False:
            given["max_area"] = gray.size
        return given


def load_edit_backend(files: EditFiles, *, device: str | None = None) -> EditBackend:
    """Open an edit model, in bfloat16 on a GPU and float32 on a CPU.

    On an NVIDIA GPU that it does not fit, its parts are moved there one after the other, as each is needed.

    Args:
        files: see `find_model`.
        device: of torch; None for the best there is.

    Raises:
        MissingExtraError: torch, or torchvision where its own parts take it, is not installed.
        ModelError: a part is missing, damaged or not known here; or there is no such device.
    """
    if not has_torch():
        raise MissingExtraError(f"{files.name} is an edit model, and running it", "torch")
    if "processor" in files.kind.parts and find_spec("torchvision") is None:
        raise MissingExtraError(f"{files.name} needs torchvision, and running it", "colorizers")
    import diffusers
    import torch

    chosen = torch_device(device)
    dtype = torch.float32 if chosen.type == "cpu" else torch.bfloat16
    for part in files.kind.parts:
        check_edit_part(files.name, files.path / part, part)
    parts = {part: _load_part(files, part, dtype if part in NETWORKS else None) for part in files.kind.parts}
    # Settings beside the parts; a watermark would change the picture
    settings = {key: value for key, value in files.index.items() if key[0:1] != "_" and isinstance(value, bool)}
    if "unet" in parts:
        settings["add_watermarker"] = False
    try:
        with quiet_libraries(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = getattr(diffusers, files.pipeline_class)(**parts, **settings)
            _place(pipeline, files, chosen)
    except Exception as error:
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise
        raise ModelError(f"{files.name}: it cannot be opened ({reason_of(error)}); give another") from error
    pipeline.set_progress_bar_config(disable=True)
    return EditBackend(files, pipeline)


def _load_part(files: EditFiles, part: str, dtype: torch.dtype | None) -> Any:
    return open_part(files.name, files.path, part, edit_part_class(files, part), dtype)


def _place(pipeline: Any, files: EditFiles, device: torch.device) -> None:
    """Move a pipeline to where it computes: whole, or where it does not fit a GPU, part by part as it runs."""
    import torch

    for network in (getattr(pipeline, part) for part in files.kind.parts if part in NETWORKS):
        network.eval().requires_grad_(False)
    if device.type == "cuda":
        stored = sum(path.stat().st_size for part in NETWORKS if part in files.kind.parts
                     for path in weight_files(files.path / part))  # fmt: skip
        if ROOM * stored > torch.cuda.mem_get_info(device)[0]:
            pipeline.enable_model_cpu_offload(device=device)
            return
    pipeline.to(device)


def _aligned(gray: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Return the colors of a picture that was drawn anew, of any size, on the gray: (h, w) -> (h, w, 3) float32.

    Where it shows something else, its colors stay as they lie: they are shown, and no run of thousands ends for it.
    """
    levels, drawn = (np.rint(255 * np.clip(each, 0, 1)).astype(np.uint8) for each in (gray, rgb))
    try:
        chroma = color.take_colors(levels, drawn).chroma
    except PhotoError:
        smaller = rgb.shape[0] > gray.shape[0]
        return cv2.resize(rgb, gray.shape[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return color.with_chroma(gray, color.resize(chroma, gray.shape[0], gray.shape[1]))

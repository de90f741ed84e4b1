"""Settings of a server: where it listens, who may use it, and how much work it accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chromatune.errors import OptionsError, shown
from chromatune.options import Flag, options_error

LOOPBACK = ("127.0.0.1", "::1", "localhost")
TOKEN_VARIABLE = "CHROMATUNE_TOKEN"  # on a command line, everybody on the machine can read it
OLD_NAMES = {"films": "videos", "film_minutes": "video_minutes", "max_film_mb": "max_video_mb"}  # until 0.3
RESULT_FOLDER = "model"  # in the folder of a run
SHORTEST_TOKEN = 16  # characters; shorter ones are guessed


class ServeSettings(BaseModel):
    """Settings of `chromatune serve`.

    Raises (through `make_serve_settings`):
        OptionsError: a value is out of range, or other machines may connect without a token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on; an address that others can reach needs --token.",
    )
    port: int = Field(default=8321, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    token: Annotated[str | None, Flag(metavar="TEXT", unset="none on this machine")] = Field(
        default=None,
        min_length=SHORTEST_TOKEN,
        description="Token that clients send as `Authorization: Bearer TEXT`; better given as CHROMATUNE_TOKEN in the "
        "environment.",
    )
    without_token: bool = Field(default=False, description="Let other computers connect without a token.")
    allow_host: Annotated[tuple[str, ...], Flag(metavar="NAME", unset="")] = Field(
        default=(), description="A host name by which the server is reached, such as a proxy's; repeatable."
    )
    model: Annotated[tuple[str, ...], Flag(metavar="MODEL", unset="mini, mini-base")] = Field(
        default=(), description="A model to offer, the first is the default; repeatable."
    )
    device: Annotated[str | None, Flag(unset="the best there is")] = Field(
        default=None, description="Where to compute."
    )
    runtime: Annotated[str | None, Flag(metavar="onnx|torch", unset="the faster")] = Field(
        default=None, description="Runtime: ONNX Runtime or torch."
    )
    workers: Annotated[int | None, Flag(unset="one per core")] = Field(
        default=None, ge=1, le=64, description="Photos processed at the same time, with --engine ray in each replica."
    )
    engine: Literal["local", "ray"] = Field(
        default="local", description="Engine: this process, or replicas of Ray Serve (extra ray)."
    )
    replicas: int = Field(default=1, ge=1, le=1000, description="Replicas of Ray Serve, with --engine ray.")
    ray_address: Annotated[str | None, Flag(metavar="HOST:PORT", unset="one started here")] = Field(
        default=None, description="Ray cluster to use, with --engine ray."
    )
    queue: int = Field(
        default=32,
        ge=0,
        le=10_000,
        description="Photos that are uploaded or wait for a worker; more are refused (429).",
    )
    connections: int = Field(
        default=256,
        ge=8,
        le=10_000,
        description="Open connections; at most half of the descriptors that the system allows.",
    )
    max_upload_mb: float = Field(default=100.0, gt=0, le=4096, description="Larger requests are refused (413).")
    max_megapixels: float = Field(default=60.0, gt=0, le=1000, description="Larger photos are refused (400).")
    timeout_s: float = Field(
        default=120.0, gt=0, le=3600, description="Seconds that an upload may pause, and that a response may take."
    )
    sessions: int = Field(
        default=16,
        ge=1,
        le=1000,
        description="Photos open for edits; if there are more, the least recently used is closed.",
    )
    max_sessions_mb: float = Field(
        default=1000.0,
        gt=0,
        le=1_000_000,
        description="Memory of open photos; beyond it the least recently used are closed.",
    )
    session_minutes: float = Field(
        default=30.0, gt=0, le=1440, description="Minutes that an open photo is kept after its last use."
    )
    batches: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="Batches stored; a new one replaces the oldest finished one, or is refused (429).",
    )
    batch_minutes: float = Field(
        default=60.0, gt=0, le=1440, description="Minutes that a batch is kept after its last use."
    )
    max_batch_mb: float = Field(default=1000.0, gt=0, le=65536, description="Larger batches are refused (413).")

    videos: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="Videos stored; a new one replaces the oldest that is not in progress, or is refused (429).",
    )
    video_minutes: float = Field(
        default=120.0, gt=0, le=1440, description="Minutes that a video is kept after its last use."
    )
    max_video_mb: float = Field(default=4000.0, gt=0, le=1_000_000, description="Larger videos are refused (413).")
    max_video_megapixels: float = Field(
        default=9.0, gt=0, le=1000, description="Videos with larger frames are refused."
    )
    max_video_frames: int = Field(default=500_000, ge=1, description="Videos of more frames are refused.")
    max_video_minutes: float = Field(default=240.0, gt=0, le=100_000, description="Longer videos are refused.")

    @model_validator(mode="after")
    def _is_guarded(self) -> ServeSettings:
        if self.host not in LOOPBACK and self.token is None and not self.without_token:
            raise ValueError(
                f"--host {self.host} lets other machines connect; give --token TEXT, or --without-token to allow it"
            )
        return self

    @model_validator(mode="after")
    def _has_replicas_of_ray(self) -> ServeSettings:
        if self.engine == "local" and (self.replicas != 1 or self.ray_address is not None):
            raise ValueError("--replicas and --ray-address go with --engine ray")
        return self

    @model_validator(mode="after")
    def _has_distinct_names(self) -> ServeSettings:
        if len(set(self.models)) < len(self._sources):
            raise ValueError(f"two models have the same name: {', '.join(self.models)}; rename one")
        return self

    @property
    def _sources(self) -> tuple[str, ...]:
        return self.model or ("mini", "mini-base")

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models offered, the default first; of a path its last part, as clients see no paths.

        Of the model of a run it is the folder of the run: `my-model` of `my-model/model`.
        """
        return tuple(_offered_as(source) for source in self._sources)

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the models whose results the page shows side by side: those that were asked for."""
        return self.models if self.model else self.models[:1]

    @property
    def max_pixels(self) -> int:
        """Most pixels of a photo."""
        return round(self.max_megapixels * 1e6)

    def check_offered(self, model: str) -> None:
        """Check the name of a model.

        Raises:
            OptionsError: it is not offered.
        """
        if model not in self.models:
            raise OptionsError(f"model={shown(model)}: not offered; accepted: {', '.join(self.models)}", "model")

    def source_of(self, model: str) -> str:
        """Return the name, folder or file to load for a model offered."""
        return self._sources[self.models.index(model)]


def _offered_as(source: str) -> str:
    path = Path(source).expanduser()
    if path.name == RESULT_FOLDER and path.is_dir():  # of a run, whose own folder has a telling name
        path = path.resolve().parent
    if "+" in source and not path.exists():  # a blend of two
        return "+".join(map(_offered_as, source.split("+")))
    return (path.resolve().name or source) if path.exists() or path.is_absolute() else source


def make_serve_settings(**given: Any) -> ServeSettings:
    """Return settings from loose values, also under their names of version 0.1.

    Raises:
        OptionsError: one line about the first that is wrong.
    """
    try:
        return ServeSettings(**{OLD_NAMES.get(name, name): value for name, value in given.items()})
    except ValidationError as error:
        raise options_error(error, ServeSettings, "setting") from None

"""`chromatune video`: a video to its file, or frames to frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chromatune.cli.colorize import (
    DEFAULT_MODEL,
    MODEL_OPTION,
    Blend,
    Device,
    Library,
    Like,
    Quiet,
    blended,
    read_references,
)
from chromatune.cli.fields import takes_fields
from chromatune.cli.terminal import complain, print_line, stages
from chromatune.errors import OptionsError, count_of
from chromatune.options import ColorizeOptions, check_recompose, make_options

if TYPE_CHECKING:
    from chromatune.hints import Hints

FrameHints = Annotated[
    list[str] | None,
    typer.Option(
        "--hint",
        metavar="FRAME:X,Y=COLOR",
        help="The color at a pixel of a frame, such as 120:420,310=#a03020, propagated through the shot; repeatable.",
        show_default="none",
    ),
]
HintsDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Painted layers of frames, named by their numbers: 120.png.", show_default="none"),
]
FinishedFilm = Annotated[
    str | None,
    typer.Option(
        "--colors",
        metavar="FILM",
        help="Take the colors from a finished version of this video (a file or a folder of frames), by any tool or "
        "person; it may be re-timed, cropped, flicker or have gaps. No model is used, unless --model names one for "
        "the gaps.",
        show_default="none",
    ),
]
StillsDir = Annotated[
    str | None,
    typer.Option(
        "--stills",
        metavar="DIR",
        help="Finished frames, named by number or timecode (120.png, 00-01-23-12.png): their colors are propagated "
        "through their shots and to other shots of the same scene; the model colors the rest.",
        show_default="none",
    ),
]
Shots = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Text file with the first frame of each shot, one per line; read if it exists, else written.",
        show_default="detected",
    ),
]
Preview = Annotated[
    float | None,
    typer.Option(min=0.01, max=1e6, metavar="SECONDS", help="Colorize only the first SECONDS.", show_default="all"),
]
CodecName = Annotated[
    str | None,
    typer.Option(metavar="h264|h265|ffv1|prores", help="Codec of the video file.", show_default="h264"),
]
Cache = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Cache folder for the shots' chroma, used to resume.",
        show_default="OUT.chroma",
    ),
]
Rate = Annotated[
    float | None, typer.Option(min=0.01, max=1000, help="Frames per second, for a folder of frames.", show_default="25")
]


@takes_fields(make_options)
def video_command(
    *,
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="A video file, or a folder of numbered frames.")],
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="A file such as x.mp4, x.mov or x.mkv, or a folder for frames.")
    ],
    model: Annotated[str | None, MODEL_OPTION] = None,
    colors: FinishedFilm = None,
    stills: StillsDir = None,
    blend: Blend = None,
    options: ColorizeOptions,
    hint: FrameHints = None,
    hints_dir: HintsDir = None,
    like: Like = None,
    shots: Shots = None,
    preview: Preview = None,
    codec: CodecName = None,
    cache: Cache = None,
    rate: Rate = None,
    device: Device = None,
    runtime: Library = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing result.")] = False,
    quiet: Quiet = False,
) -> int:
    """Colorize a video without flicker, and print the path of the result.

    Luma, frame times and sound are the video's own. An interrupted run resumes; a changed hint recolors
    only its shot.
    """
    from fractions import Fraction

    from chromatune.video import VideoOptions, colorize_video, open_video, read_starts, read_stills, write_starts

    check_recompose(options, "a video needs")
    without_model = colors is not None and model is None
    if without_model and (like or stills or blend):
        raise OptionsError("--like, --stills and --blend need a model beside --colors; name one with --model")
    frames_rate = None if rate is None else Fraction(rate).limit_denominator(1001)
    opened = open_video(video, rate=frames_rate)
    video_options = VideoOptions(
        out=Path(out),
        model=None if without_model else blended(model or DEFAULT_MODEL, blend),
        colorize_options=options,
        hints=_hints(hint or (), hints_dir),
        colors=None if colors is None else open_video(colors, rate=frames_rate),
        stills={} if stills is None else read_stills(Path(stills)),
        like=read_references(like, options) if like else (),
        codec=codec,
        starts=read_starts(Path(shots)) if shots is not None and Path(shots).exists() else None,
        preview_seconds=preview,
        cache=None if cache is None else Path(cache),
        overwrite=overwrite,
        device=device,
        runtime=runtime,
    )
    with stages(shown=not quiet) as start_stage:
        result = colorize_video(
            opened, video_options, start_stage=start_stage, warn=lambda line: complain(line, "warning")
        )
    if shots is not None and video_options.starts is None:
        write_starts(Path(shots), result.shots)
    if not quiet:
        cached = len(result.shots) - result.colored_shots
        counts = f"{count_of(result.frames, 'frame')} in {count_of(len(result.shots), 'shot')}"
        complain(counts + (f", {cached} of them colored before" if cached > 0 else ""), "note")
        print_line(result.out)
    return 0


def _hints(points: Sequence[str], folder: str | None) -> dict[int, Hints]:
    """Hints by frame: painted layers, and points that lie on top of them."""
    if not points and folder is None:
        return {}

    from chromatune.hints import Hints
    from chromatune.video import layers_by_frame, parse_frame_point

    found = {} if folder is None else layers_by_frame(Path(folder))
    for point in points:
        frame, of_frame = parse_frame_point(point)
        found[frame] = found.get(frame, Hints()) + of_frame
    return found

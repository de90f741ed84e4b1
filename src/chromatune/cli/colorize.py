"""`chromatune colorize`: photos to their files, a line for each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from chromatune.cli.fields import takes_fields
from chromatune.cli.terminal import complain, print_line, stages
from chromatune.errors import OptionsError, count_of, shown
from chromatune.options import MOST_VARIANTS, ColorizeOptions, check_recompose, make_options

if TYPE_CHECKING:
    from chromatune.images import Photo
    from chromatune.jobs import Done, Event, FinishedLookup, HintLookup, Job

PAGE_NUMBER = re.compile("[1-9][0-9]{0,8}")
MOST_MEGAPIXELS = 100_000
DEFAULT_MODEL = "mini"
MOST_EXISTING = 3  # results that exist and get a line each


MODEL_OPTION = typer.Option(
    help="A name that `chromatune models` lists, a colorizer's file such as ddcolor.onnx, an InstructPix2Pix folder, "
    "or a hub name.",
    show_default=DEFAULT_MODEL,
)
Model = Annotated[str, MODEL_OPTION]
Blend = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL:SHARE",
        help="Mix in another model's colors, such as mini:0.3; the same as --model MODEL+MODEL:SHARE.",
        show_default="none",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print failures only.")]
Out = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="A file such as x.png (one photo), or a folder, which is created if missing; - writes to standard output.",
        show_default="NAME.color.EXT beside the photo",
    ),
]
Variants = Annotated[
    int,
    typer.Option(
        min=1,
        max=MOST_VARIANTS,
        help="Number of results for each photo: NAME.color-1.EXT, -2 ... are those of --variant 1, 2 ...",
    ),
]
HintLayer = Annotated[
    str | None,
    typer.Option(
        "--hints",
        metavar="LAYER",
        help="Colors painted on a transparent layer of the photo: PNG, TIFF or WebP, of any size.",
        show_default="none",
    ),
]
HintPoints = Annotated[
    list[str] | None,
    typer.Option(
        "--hint",
        metavar="X,Y=COLOR",
        help="The color at a pixel of the photo, such as 420,310=#a03020, or 420,310,12=#a03020 with a radius of 12 "
        "pixels; repeatable.",
        show_default="none",
    ),
]
HintsDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Painted layers, each named like its photo.", show_default="none"),
]
Like = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PHOTO",
        help="A photo in color whose colors are used where it shows the same things; repeatable.",
        show_default="none",
    ),
]
Colors = Annotated[
    str | None,
    typer.Option(
        metavar="PICTURE",
        help="Take the colors from a finished picture of this photo, made by any tool or person; it may be cropped, "
        "rotated or redrawn in places. No model is used, unless --model names one for the rest of the photo.",
        show_default="none",
    ),
]
ColorsDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Finished pictures, each named like its photo.", show_default="none"),
]
Page = Annotated[
    str | None,
    typer.Option(
        metavar="N|all",
        help="Page of a file with several pictures; with all, NAME.color-p1.EXT, -p2 ...",
        show_default="the main picture",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where to compute: cpu, cuda, mps; by ONNX Runtime also coreml, directml, openvino.",
        show_default="the fastest available",
    ),
]
Library = Annotated[
    str | None,
    typer.Option(metavar="onnx|torch", help="Runtime: ONNX Runtime or torch.", show_default="the faster"),
]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Resume an earlier run: keep existing results.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse truncated photos instead of warning.")]
KeepTimes = Annotated[
    bool,
    typer.Option(
        "--keep-times", help="Give each result its photo's modification time, so that albums sort it beside the photo."
    ),
]
MaxMegapixels = Annotated[
    float,
    typer.Option(
        min=0.1, max=MOST_MEGAPIXELS, help="Refuse larger photos: each megapixel needs 33 to 56 MB of memory."
    ),
]


@takes_fields(make_options)
def colorize_command(
    *,
    photos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PHOTO", help="Photos to colorize; - reads one from standard input.", show_default=False
        ),
    ] = None,
    out: Out = None,
    model: Annotated[str | None, MODEL_OPTION] = None,
    colors: Colors = None,
    colors_dir: ColorsDir = None,
    blend: Blend = None,
    options: ColorizeOptions,
    hints: HintLayer = None,
    hint: HintPoints = None,
    hints_dir: HintsDir = None,
    like: Like = None,
    variants: Variants = 1,
    batch_size: Annotated[int, typer.Option(min=1, max=1000, help="Photos that the model processes at once.")] = 8,
    device: Device = None,
    runtime: Library = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    skip_existing: SkipExisting = False,
    page: Page = None,
    strict: Strict = False,
    keep_times: KeepTimes = False,
    sidecar: Annotated[
        bool,
        typer.Option("--sidecar", help="Write RESULT.json beside each result: model, options and hints, for --again."),
    ] = False,
    again: Annotated[
        str | None,
        typer.Option(
            metavar="SIDECAR",
            help="Reproduce a result from its sidecar: the same model, options and hints. Give PHOTO only if the photo "
            "was moved.",
            show_default="none",
        ),
    ] = None,
    max_megapixels: MaxMegapixels = 150.0,
    quiet: Quiet = False,
) -> int:
    """Colorize photos and print the path of each result.

    The photos' own files are never changed. A photo that fails gives a line on standard error, the run continues, and
    the exit code is 1.
    """
    each = _of_variants(options, variants)
    if overwrite and skip_existing:
        raise OptionsError("--overwrite and --skip-existing contradict each other; give one of them")
    photos = photos or []
    if again is not None:
        if options != ColorizeOptions() or model or colors or colors_dir or hints or hint or hints_dir or like or blend:
            raise OptionsError("--again takes model, options and hints from the sidecar; leave out all others")
        return _again(again, photos, out, max_pixels=round(max_megapixels * 1e6), overwrite=overwrite, quiet=quiet)
    if not photos:
        raise OptionsError("no photo is given; see chromatune colorize --help")

    # Not at the top: they load OpenCV, which `--help` does not need
    from chromatune.images import find_own_results
    from chromatune.jobs import colorize_photos, plan_jobs

    if results := find_own_results(photos):
        photos = [photo for photo in photos if photo not in set(results)]
        complain(f"skipped {count_of(len(results), 'result')} of earlier runs, such as {results[0]}", "note")
    jobs = plan_jobs(photos, out, variants, _pages(photos, page))
    if sidecar and (_reads_standard_input(jobs) or _writes_standard_output(jobs)):
        raise OptionsError("--sidecar needs files, not standard input or output; leave it out, or name the files")
    _refuse_terminals(jobs)
    hints_of = _hints(jobs, hints, hint or (), hints_dir, options)
    finished_of = _finished(jobs, colors, colors_dir)
    if finished_of is not None and (like or sidecar or variants > 1 or (blend and model is None)):
        raise OptionsError(
            "--colors uses a picture's colors instead of a model's; leave out --like, --sidecar, --variants and --blend"
        )
    events = colorize_photos(
        jobs,
        each,
        None if model is None and finished_of is not None else blended(model or DEFAULT_MODEL, blend),
        device=device,
        runtime=runtime,
        batch_size=batch_size,
        overwrite=overwrite,
        strict=strict,
        keep_times=keep_times,
        max_pixels=round(max_megapixels * 1e6),
        standard_input=_standard_input(round(max_megapixels * 1e6)) if _reads_standard_input(jobs) else b"",
        standard_output=sys.stdout.buffer if _writes_standard_output(jobs) else None,
        hints_of=hints_of,
        like=read_references(like or (), options),
        sidecars=sidecar,
        finished_of=finished_of,
    )
    return _print_events(events, len(jobs), quiet, skip_existing)


def _again(path: str, photos: Sequence[str], out: str | None, *, max_pixels: int, overwrite: bool, quiet: bool) -> int:
    """Make the result of a sidecar again."""
    from chromatune.hints import Hints
    from chromatune.jobs import check_weights, colorize_photos, found_file, plan_jobs, read_sidecar

    if len(photos) > 1:
        raise OptionsError("--again works on one photo; give only that one")
    sidecar = read_sidecar(path)
    photo = found_file(sidecar.photo, path, photos[0] if photos else None)
    like = [found_file(each, path) for each in sidecar.like]
    check_weights(sidecar)
    hints = Hints() if sidecar.hints is None else Hints.from_json(sidecar.hints)
    jobs = plan_jobs([photo], out, 1, {} if sidecar.page is None else {photo: (sidecar.page,)})
    events = colorize_photos(
        jobs,
        [sidecar.options],
        sidecar.model,
        runtime=sidecar.runtime,
        overwrite=overwrite,
        max_pixels=max_pixels,
        standard_output=sys.stdout.buffer if _writes_standard_output(jobs) else None,
        hints_of=lambda source: hints,
        like=read_references(like, sidecar.options),
    )
    return _print_events(events, len(jobs), quiet, skip_existing=False)


def _finished(jobs: Sequence[Job], picture: str | None, folder: str | None) -> FinishedLookup | None:
    """Return the photos' finished pictures: of one photo a picture, of several a folder."""
    from chromatune.jobs import finished_from_folder

    if folder is not None:
        if picture is not None:
            raise OptionsError("--colors and --colors-dir cannot be combined; give one of them")
        return finished_from_folder(folder)
    if picture is None:
        return None
    if len({job.source for job in jobs}) > 1:
        raise OptionsError("--colors works on one photo; for several, give --colors-dir")
    return lambda source: picture


def blended(model: str, blend: str | None) -> str:
    """Return a model's name with another one's share of its colors, see `Blend`.

    Raises:
        OptionsError: it is no name with a share.
    """
    if blend is None:
        return model
    name, _, share = blend.rpartition(":")
    try:
        amount = float(share)
    except ValueError:
        amount = -1.0
    if not name or not 0 <= amount <= 1:
        raise OptionsError(
            f"--blend {shown(blend)}: accepted is MODEL:SHARE with a share from 0 to 1, such as mini:0.3"
        )
    return f"{model}+{name}:{amount:.4f}"


def _hints(
    jobs: Sequence[Job], layer: str | None, points: Sequence[str], folder: str | None, options: ColorizeOptions
) -> HintLookup:
    """Return the photos' hints: of one photo by a layer and points, of several by a folder of layers."""
    from chromatune.hints import Hints, parse_point
    from chromatune.jobs import hints_from_folder, no_hints

    if layer is None and not points and folder is None:
        return no_hints
    check_recompose(options)
    if folder is not None:
        if layer is not None or points:
            raise OptionsError("--hints-dir cannot be combined with --hints and --hint; leave one of them out")
        return hints_from_folder(folder)
    if len({job.source for job in jobs}) > 1:
        raise OptionsError("--hints and --hint work on one photo; for several, give --hints-dir")
    of_photo = Hints() if layer is None else Hints.from_layer(layer, name=layer)
    for point in points:
        of_photo += parse_point(point)
    return lambda source: of_photo


def read_references(paths: Sequence[str], options: ColorizeOptions) -> list[Photo]:
    """Read and check reference photos, before the model is loaded.

    Raises:
        OptionsError: they contradict `options`.
        PhotoError: one cannot be read, or is gray.
    """
    if not paths:
        return []

    from chromatune.hints import check_reference
    from chromatune.images import read_photo

    check_recompose(options, "--like needs")
    photos = [read_photo(path, name=path) for path in paths]
    for photo in photos:
        check_reference(photo)
    return photos


def _pages(photos: Sequence[str], page: str | None) -> dict[str, Sequence[int]]:
    """Return the pages wanted of each photo; one that cannot be opened has no entry, and fails when it is read."""
    if page is None:
        return {}
    if page != "all":
        if not PAGE_NUMBER.fullmatch(page):
            raise OptionsError(f"--page {shown(page)}: accepted is a number from 1, or all")
        return {photo: (int(page),) for photo in photos}

    from chromatune.errors import PhotoError
    from chromatune.images import count_pages
    from chromatune.jobs import STANDARD_STREAM

    if STANDARD_STREAM in photos:
        raise OptionsError("--page all needs files; for standard input give a page by its number")
    wanted: dict[str, Sequence[int]] = {}
    for photo in photos:
        try:
            wanted[photo] = range(1, count_pages(photo) + 1)
        except PhotoError:
            continue
    return wanted


def _of_variants(options: ColorizeOptions, variants: int) -> list[ColorizeOptions]:
    """Return the options of each variant, from the first."""
    if variants == 1:
        return [options]
    if options.variant > 1:
        raise OptionsError("--variant and --variants contradict each other; give one of them")
    return [options.model_copy(update={"variant": number}) for number in range(1, variants + 1)]


def _standard_input(max_pixels: int) -> bytes:
    from chromatune.images import read_stream

    return read_stream(sys.stdin.buffer, max_pixels=max_pixels, name="standard input")


def _reads_standard_input(jobs: Sequence[Job]) -> bool:
    from chromatune.jobs import STANDARD_STREAM

    return any(job.source == STANDARD_STREAM for job in jobs)


def _writes_standard_output(jobs: Sequence[Job]) -> bool:
    return any(job.stem is None for job in jobs)


def _refuse_terminals(jobs: Sequence[Job]) -> None:
    """Refuse a terminal at either end of a pipe of pictures, and a result that nobody would get."""
    if _writes_standard_output(jobs) and getattr(sys.stdout, "name", "") == os.devnull:  # see `open_closed_streams`
        raise OptionsError("standard output is closed; send it to a file or a program, or give -o FILE")
    if _writes_standard_output(jobs) and sys.stdout.isatty():
        raise OptionsError("standard output is a terminal; send it to a file or a program, or give -o FILE")
    if _reads_standard_input(jobs) and sys.stdin.isatty():
        raise OptionsError("standard input is a terminal; send a photo into it: chromatune colorize - < PHOTO")


def _print_events(events: Iterable[Event], results: int, quiet: bool, skip_existing: bool) -> int:
    """Print a line for each result, warning and failure as it comes, sum up what exists, and return the exit code."""
    from chromatune.jobs import Exists, Failed

    code, existing, warned, colored = 0, 0, set[str](), list[str]()
    with stages(shown=not quiet and results > 1) as start_stage:
        advance = start_stage("colorizing", results)
        for event in events:
            if isinstance(event, Failed):
                complain(event.message)
                code = 1
            elif isinstance(event, Exists):
                existing += 1
                if not skip_existing and existing <= MOST_EXISTING:
                    complain(f"{event.path} exists; replace it with --overwrite, or choose another place with -o")
            elif not quiet:
                for warning in _warnings(event):
                    if warning not in warned:
                        complain(warning, "warning")
                        warned.add(warning)
                if event.job.variant == 0:
                    for note in event.result.notes:
                        complain(f"{_name_of(event)}: {note}", "note")
                    if event.result.photo.in_color and not event.result.notes:
                        colored.append(_name_of(event))
                if event.path is not None:
                    print_line(event.path)
            for _ in range(event.results if isinstance(event, Failed) else 1):
                advance()
    if colored:
        them = count_of(len(colored), "photo is in color already and its", "photos are in color already and their")
        first = ", the first" if len(colored) > 1 else ""
        complain(f"{them} own colors are not used{first}: {colored[0]}", "note")
    if existing and skip_existing and not quiet:
        complain(f"skipped {count_of(existing, 'existing result')}", "note")
    elif existing > MOST_EXISTING and not skip_existing:
        more = count_of(existing - MOST_EXISTING, "more result exists", "more results exist")
        complain(f"{more}; colorize the rest with --skip-existing")
    return 1 if existing and not skip_existing else code


def _warnings(done: Done) -> Iterable[str]:
    """Yield a result's warnings, a line each: of its photo by name, of the options once for all."""
    yield from (f"{_name_of(done)}: {warning}" for warning in done.result.photo.warnings)
    yield from done.result.warnings


def _name_of(done: Done) -> str:
    return done.result.photo.name if done.job.source == "-" else done.job.source

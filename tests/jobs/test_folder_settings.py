"""Settings of single folders: which photos they are for, what they do to later runs, and what is wrong with a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.cli import main
from chromatune.errors import OptionsError
from chromatune.jobs.archive_worker import ArchiveSettings
from chromatune.jobs.folder_settings import FolderSettings, PhotoSettings
from chromatune.jobs.manifest import Manifest
from chromatune.jobs.stores import LocalFolder
from chromatune.options import ColorizeOptions

Put = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
USUAL = PhotoSettings(ColorizeOptions(seed=1, strength=0.5))


def settings(**files: str) -> FolderSettings:
    """Settings of files by their folders below photos, with _ for /; root is photos itself."""
    for name, text in files.items():
        folder = Path("photos", "" if name == "root" else name.replace("_", "/"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "chromatune.toml").write_text(text)
    source = LocalFolder("photos")
    return FolderSettings(source, source.find().settings_files, USUAL)


@pytest.fixture
def archive(engine, put: Put) -> None:
    for name in ("a.png", "p/b.png", "p/q/c.png", "p2/d.png"):
        put(f"photos/{name}")


def seeds(name: str) -> int:
    """How much bluer than red a result is: four times the seed that it was made with."""
    red, _, blue = np.asarray(Image.open(f"out/{name}").convert("RGB"))[0, 0].astype(int)
    return int(blue - red) // 4


def test_the_nearest_file_wins_name_by_name(folder: Path) -> None:
    found = settings(root="steps = 9", a='prompt = "warm"\nsize = 64\npage = 2', a_b="size = 96\nhint-strength = 0.5")
    got = {photo: found.of(photo) for photo in ("x.png", "a/x.png", "a/b/x.png", "a/b/c/d/x.png", "ab/x.png")}
    assert got["x.png"] == got["ab/x.png"] == PhotoSettings(ColorizeOptions(seed=1, strength=0.5, steps=9))
    assert (got["a/x.png"].options.prompt, got["a/x.png"].options.size_px, got["a/x.png"].page) == ("warm", 64, 2)
    inner = got["a/b/x.png"]
    assert (inner.options.prompt, inner.options.size_px, inner.options.hint_strength, inner.page) == (
        "warm",
        96,
        0.5,
        2,
    )
    assert got["a/b/c/d/x.png"] is inner and inner.options.seed == 1
    assert found.names == ("hint_strength", "page", "prompt", "size", "steps")


def test_a_later_run_does_not_undo_a_tuned_folder(archive, engine) -> None:
    assert main(["batch", "photos", "out", "-q"]) == 0
    Path("photos/p/chromatune.toml").write_text("seed = 7\n")
    assert main(["batch", "photos", "out", "-q"]) == 0
    assert len(engine.calls) == 6
    assert main(["batch", "photos", "out", "-q"]) == 0
    assert len(engine.calls) == 6
    assert [seeds(name) for name in ("a.png", "p/b.png", "p/q/c.png", "p2/d.png")] == [0, 7, 7, 0]
    assert main(["batch", "photos", "out", "-q", "--seed", "3"]) == 0
    assert len(engine.calls) == 8
    assert [seeds(name) for name in ("a.png", "p/b.png", "p/q/c.png", "p2/d.png")] == [3, 7, 7, 3]
    Path("photos/p/chromatune.toml").unlink()
    assert main(["batch", "photos", "out", "-q", "--seed", "3"]) == 0
    assert seeds("p/b.png") == 3 and len(engine.calls) == 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeed = 3", "unknown setting 'seeed'; accepted: prompt, negative_prompt, steps, seed, "),
        ('model = "mini"', "unknown setting 'model'; accepted: "),
        ("strength = 2", "strength=2: input should be less than or equal to 1"),
        ('size = "large"', "size='large': input should be a valid integer"),
        ("size = 3", "size=3: input should be greater than"),
        ("seed = {a = 1}", "seed={'a': 1}: input should be a valid integer"),
        ("page = 0", "page=0: accepted is a number from 1"),
        ("page = true", "page=True: accepted is a number from 1"),
        ("prompt = warm", "not valid TOML ("),
        ("recompose = false", "--hints-dir needs the photo's own luminance"),
        ("[a", "not valid TOML ("),
        ("a = " + "[" * 30_000, "not valid TOML ("),
        ("x" * 70_000, "cannot be read (more than 64000 bytes)"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_name(archive, engine, capsys: Capture, text: str, said: str) -> None:
    Path("photos/p/chromatune.toml").write_text(text)
    Path("layers").mkdir()
    assert main(["batch", "photos", "out", "--hints-dir", "layers"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: photos/p/chromatune.toml: {said}") and errors.count("\n") == 1
    assert engine.loads == []


def test_text_that_is_not_utf_8_is_one_line(archive, capsys: Capture) -> None:
    Path("photos/p/chromatune.toml").write_bytes(b'prompt = "caf\xe9"')
    assert main(["batch", "photos", "out"]) == 2
    assert "photos/p/chromatune.toml: not UTF-8" in capsys.readouterr().err


def test_links_out_of_the_folder_and_pipes_are_not_followed(archive, folder: Path, capsys: Capture) -> None:
    Path("secret").write_text("password of mine")
    path = Path("photos/p/chromatune.toml")
    path.symlink_to(Path("secret").resolve())
    assert main(["batch", "photos", "out"]) == 2
    said = capsys.readouterr().err
    assert "it is a link out of the folder, which is not followed" in said and "password" not in said
    path.unlink()
    os.mkfifo(path)
    assert main(["batch", "photos", "out"]) == 2
    assert "a pipe, socket or device, not a file" in capsys.readouterr().err
    path.unlink()
    Path("photos/all.toml").write_text("seed = 7")
    path.symlink_to(Path("photos/all.toml").resolve())
    assert main(["batch", "photos", "out", "-q"]) == 0
    assert seeds("p/b.png") == 7


def test_a_folder_behind_a_url_has_them_too(engine, put: Put, capsys: Capture) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.store.clear()
    memory.pipe_file("/scans/p/a.png", put("a.png").read_bytes())
    memory.pipe_file("/scans/p/a.xmp", b"<x/>")
    memory.pipe_file("/scans/p/chromatune.toml", b"seed = 7")
    assert main(["batch", "memory://scans", "out", "-q"]) == 0
    assert seeds("p/a.png") == 7 and Path("out/p/a.xmp").read_bytes() == b"<x/>"
    memory.pipe_file("/scans/p/chromatune.toml", b"x" * 70_000)
    assert main(["batch", "memory://scans", "out", "-q"]) == 2
    assert "memory://scans/p/chromatune.toml: cannot be read (more than 64000 bytes)" in capsys.readouterr().err
    memory.store.clear()


def test_what_the_model_refuses_names_the_file(archive, monkeypatch: pytest.MonkeyPatch) -> None:
    from chromatune.jobs import catalog

    key_of = catalog.settings_key

    def refuse(chosen):
        if chosen.options.seed == 7:
            raise OptionsError("the model has no seeds")
        return key_of(chosen)

    monkeypatch.setattr(catalog, "settings_key", refuse)
    Path("photos/p/chromatune.toml").write_text("seed = 7")
    with pytest.raises(OptionsError, match="photos/p/chromatune.toml: the model has no seeds"):
        catalog.Catalog(
            ArchiveSettings(LocalFolder("photos"), LocalFolder("out")),
            Manifest(Path("none"), read_only=True),
            Path("out"),
        ).find()

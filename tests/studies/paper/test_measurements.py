"""What an experiment measured before is read again, or one line says that it cannot be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chromatune.errors import DataError
from studies.paper import ambiguity
from studies.paper import experiment as whole
from studies.paper.declaration import parse
from studies.paper.findings import Findings


def made_up(colorizer, photos, seed, advance) -> list[dict[str, object]]:
    return [
        {"row": aspect, "key": key, **dict.fromkeys(metrics, 20.0 + number)}
        for number, (key, _, _) in enumerate(photos)
        for aspect, metrics in ambiguity.METRICS_OF.items()
    ]


@pytest.fixture(scope="module")
def run_in(experiment, drawings, tiny_pipeline_dir) -> Callable[[Path], Findings]:
    """An experiment of one model as it is, on seeds and words, in a folder."""
    values = experiment.model_dump(mode="json", exclude={"name"}) | {
        "arms": [{"name": "as it is", "model": str(tiny_pipeline_dir)}],
        "tests": [{"name": "seeds", "on": "photos", "kind": "ambiguity"}],
        "claims": [{"text": "c", "metric": "spread", "terms": {"as it is/seeds/drawn": 1}}],
    }
    declared = parse("small", values)
    data = {"": str(drawings)}
    return lambda out: whole.run_experiment(declared, "quick", data, out, square_px=64)


@pytest.fixture(scope="module")
def ended(run_in, tmp_path_factory) -> Path:
    """The folder of such an experiment that ended; no test changes it."""
    out = tmp_path_factory.mktemp("ended") / "out"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ambiguity, "measure_all", made_up)
        run_in(out)
    return out


@pytest.fixture
def run(run_in, ended, tmp_path, monkeypatch) -> Callable[[], Findings]:
    """The experiment again, in a copy of that folder; its scores are made up."""
    monkeypatch.setattr(ambiguity, "measure_all", made_up)
    out = shutil.copytree(ended, tmp_path / "out")
    return lambda: run_in(out)


def line_of(**changes: object) -> str:
    whole = {"row": "drawn", "key": "x.png", "psnr": 20.0, "spread": 3.0} | changes
    return json.dumps({name: value for name, value in whole.items() if value is not ...})


@pytest.mark.parametrize(
    "line",
    [
        "[]", "{", "\x00", "[" * 100_000, "7",
        line_of(psnr="20"), line_of(psnr=None), line_of(psnr=float("nan")), line_of(psnr=10**400), line_of(psnr=True),
        line_of(spread=...), line_of(spread=[]), line_of(row="drwan"), line_of(row=3), line_of(key=7), line_of(key=...),
        line_of(shift=1.0), line_of(row="named hue, skin"),
    ],
)  # fmt: skip
def test_a_damaged_line_is_one_line_that_names_the_file(run, tmp_path, line):
    (path, *_) = sorted((tmp_path / "out" / "measured").glob("*.jsonl"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    with pytest.raises(DataError, match=r"\.jsonl: line 2 is damaged; delete the file") as caught:
        run()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "spoil",
    [lambda lines: lines[1:], lambda lines: [*lines, lines[0]], lambda lines: [lines[1], *lines[1:]], lambda lines: []],
)
def test_lines_that_are_lost_or_doubled_are_one_line(run, tmp_path, spoil):
    judged = run().judged
    (path, *_) = sorted((tmp_path / "out" / "measured").glob("*.jsonl"))
    path.write_text("".join(line + "\n" for line in spoil(path.read_text().splitlines())))
    with pytest.raises(DataError, match="does not hold each photo of “seeds” once; delete the file"):
        run()
    path.unlink()
    assert run().judged == judged


def test_what_a_photo_has_too_little_of_is_no_damage(run, tmp_path):
    judged = run().judged
    for path in (tmp_path / "out" / "measured").glob("*.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        records = [record | ({"shift": None} if "shift" in record else {}) for record in records]
        assert all(map(ambiguity.is_record, records))
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert run().judged == judged

"""An archive by worker processes of Ray: the local engine's bytes, whatever happens to a worker; and S3 in and out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from chromatune.cli import main
from chromatune.jobs.archive import lock_destination
from chromatune.jobs.archive_worker import (
    ArchiveJob,
    ArchiveRecord,
    ArchiveSettings,
    ArchiveWorker,
    Engine,
    LocalEngine,
    MakeWorker,
)
from chromatune.jobs.catalog import Catalog
from chromatune.jobs.ray_engine import RayEngine
from chromatune.jobs.stores import LocalFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_ray")]


@pytest.fixture
def worker_pids(pids_of) -> Callable[[], list[int]]:
    return lambda: pids_of("ray::_Worker")


def run(
    root: Path,
    out: str,
    engine_of: Callable[[MakeWorker, int], Engine],
    on_record: Callable[[int], None] = lambda number: None,
) -> dict[str, str]:
    """States by photo of a run."""
    destination = LocalFolder(out)
    settings = ArchiveSettings(LocalFolder(str(root)), destination)
    states: dict[str, str] = {}

    def show(record: ArchiveRecord) -> None:
        states[record.photo] = record.state
        on_record(len(states) - 1)

    with lock_destination(destination, settings.source) as manifest:
        catalog = Catalog(settings, manifest, destination.path)
        engine = engine_of(partial(ArchiveWorker, settings), 2)
        try:
            catalog.colorize(catalog.plan(catalog.find()), engine, show)
        finally:
            engine.close()
            catalog.commit()
            catalog.write_failures()
    return states


def until_gone(pids: Callable[[], list[int]]) -> None:
    end = time.monotonic() + 20
    while pids():
        assert time.monotonic() < end, "workers stay"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def scans(tmp_path_factory, drawing) -> Path:
    """60 photos in nested folders, some of them broken."""
    root = tmp_path_factory.mktemp("archive") / "scans"
    assert drawing.draw_archive(root, 60, shapes=[(240, 320), (480, 640)])
    return root


@pytest.fixture
def wanted(scans, folder, tree) -> dict[str, bytes]:
    """What the local engine makes of them."""
    run(scans, "local", LocalEngine)
    return tree("local")


def test_the_local_engines_bytes(scans, wanted, tree, worker_pids):
    states = run(scans, "ray", RayEngine)
    assert len(states) == 60 and set(states.values()) == {"done", "failed"}
    assert tree("ray") == wanted
    assert run(scans, "ray", RayEngine).keys() == {photo for photo, state in states.items() if state == "failed"}
    until_gone(worker_pids)


def test_a_worker_that_is_killed_costs_only_time(scans, wanted, tree, worker_pids):
    killed = []

    def kill(number: int) -> None:
        if number in (8, 20):
            os.kill(worker_pids()[0], signal.SIGKILL)
            killed.append(number)

    states = run(scans, "ray", RayEngine, kill)
    assert killed == [8, 20] and len(states) == 60
    assert tree("ray") == wanted
    assert not list(Path("ray").rglob("*.part*"))


def test_a_photo_that_kills_its_workers_fails_alone(scans, folder):
    source, destination = LocalFolder(str(scans)), LocalFolder("ray")
    photos = sorted(source.find().stamps)[:6]

    class Deadly(ArchiveWorker):
        def colorize(self, job: ArchiveJob) -> ArchiveRecord:
            if job.photo == photos[2]:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().colorize(job)

    with lock_destination(destination, source):
        engine = RayEngine(partial(Deadly, ArchiveSettings(source, destination)), 2)
        try:
            records = list(engine.records(ArchiveJob(photo, photo, f"{photo}.png") for photo in photos))
        finally:
            engine.close()
    failed = [record for record in records if record.state == "failed" and "died" in record.message]
    assert [record.photo for record in failed] == [photos[2]]
    assert len(records) == 6


def test_ctrl_c_finishes_what_is_in_work_and_begins_nothing(scans, folder, tree, worker_pids):
    def interrupt(number: int) -> None:
        if number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(scans, "ray", RayEngine, interrupt)
    until_gone(worker_pids)
    made = {key for key in tree("ray") if key != "failures.jsonl"}
    assert 0 < len(made) < 20
    states = run(scans, "ray", RayEngine)
    assert made.isdisjoint(states), "a result had no row"


def test_a_model_that_cannot_be_loaded_is_told_as_ever(scans, folder, capsys):
    (folder / "empty").mkdir()
    assert main(["batch", str(scans), "out", "--engine", "ray", "--workers", "1", "--model", "empty"]) != 0
    assert capsys.readouterr().err == "error: empty is not a model's folder: it has no model_index.json\n"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty bucket on an S3 server of this machine."""
    pytest.importorskip("s3fs")
    server_of = pytest.importorskip("moto.server").ThreadedMotoServer
    server = server_of(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
        "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    import fsspec

    fsspec.config.set_conf_env(fsspec.config.conf)
    fsspec.filesystem("s3").mkdir("archive")
    yield "s3://archive"
    fsspec.config.conf.pop("s3", None)
    server.stop()


def test_from_s3_to_s3(scans, wanted, tree, bucket, folder):
    import fsspec

    store = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    store.put(f"{scans}/", "archive/scans/", recursive=True)
    # A process of its own: its workers get their credentials from its environment
    command = [sys.executable, "-m", "chromatune", "batch", f"{bucket}/scans", f"{bucket}/out", "--engine", "ray"]
    command += ["--workers", "2", "--records-dir", "records", "-q"]
    assert subprocess.run(command, timeout=120, check=False).returncode == 1
    store.get("archive/out/", "fetched/", recursive=True)
    ours, theirs = (
        {key: data for key, data in each.items() if key not in ("failures.jsonl", "summary.html")}
        for each in (tree("fetched"), wanted)
    )
    assert ours == theirs
    planned = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, timeout=60, check=True)
    assert "to be done: " in planned.stderr and "new" not in planned.stderr

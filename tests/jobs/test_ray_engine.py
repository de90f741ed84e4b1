"""An archive by worker processes of Ray: the local engine's bytes, whatever happens to a worker; and S3 in and out."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from chromatune.jobs.local_engine import LocalEngine

from chromatune.cli import main
from chromatune.jobs.archive import Archive, hold_destination
from chromatune.jobs.archive_worker import ArchiveWorker, WorkSettings
from chromatune.jobs.ray_engine import RayEngine
from chromatune.jobs.stores import LocalFolder, Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_ray")]


def make_worker(settings: WorkSettings, source: Store, destination: Store, count: int, room) -> ArchiveWorker:
    return ArchiveWorker(settings, source, destination, workers=count, room=room)


@pytest.fixture
def worker_pids(pids_of) -> Callable[[], list[int]]:
    return lambda: pids_of("ray::_Worker")


def run(root: Path, out: str, engine_of: Callable, on_record: Callable = lambda number: None) -> dict[str, str]:
    """States by photo of a run."""
    import ray

    ray.cloudpickle.register_pickle_by_value(importlib.import_module(__name__))
    settings, source, destination = WorkSettings(), LocalFolder(str(root)), LocalFolder(out)
    with hold_destination(destination, source) as manifest:
        archive = Archive(settings, source, destination, manifest, destination.path)
        engine = engine_of(partial(make_worker, settings, source, destination), 2)
        states = {}
        try:
            for number, record in enumerate(archive.run(archive.plan(archive.find()), engine)):
                states[record.photo] = record.state
                on_record(number)
        finally:
            engine.close()
        archive.commit()
        archive.write_failures()
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


def test_a_photo_that_kills_its_workers_fails_alone(scans, folder, monkeypatch):
    from chromatune.jobs.archive_worker import ArchiveJob

    source, destination = LocalFolder(str(scans)), LocalFolder("ray")
    photos = sorted(source.find().stamps)[:6]

    class Deadly(ArchiveWorker):
        def take(self, job):
            if job.photo == photos[2]:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().take(job)

    def make_deadly(count, room):
        return Deadly(WorkSettings(), source, destination, workers=count, room=room)

    with hold_destination(destination, source):
        engine = RayEngine(make_deadly, 2)
        try:
            records = list(engine.records(ArchiveJob(photo, photo, f"{photo}.png") for photo in photos))
        finally:
            engine.close()
    failed = [record for record in records if record.state == "failed" and "died" in record.message]
    assert [record.photo for record in failed] == [photos[2]]
    assert len(records) == 6


def test_ctrl_c_tells_what_is_in_work_and_begins_nothing(scans, folder, worker_pids):
    begun = []

    def interrupt(number: int) -> None:
        if number == 5:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            begun.append(time.monotonic())

    with pytest.raises(KeyboardInterrupt):
        run(scans, "ray", RayEngine, interrupt)
    assert begun
    until_gone(worker_pids)
    states = run(scans, "ray", RayEngine)
    assert 40 < len(states) < 56


def test_a_model_that_cannot_be_loaded_is_told_as_ever(scans, folder, capsys):
    (folder / "empty").mkdir()
    assert main(["batch", str(scans), "out", "--engine", "ray", "--workers", "1", "--model", "empty"]) != 0
    assert capsys.readouterr().err == "error: empty is no pipeline folder: it has no model_index.json\n"


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

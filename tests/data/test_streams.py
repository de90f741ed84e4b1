"""Streams: tar shards and Hugging Face data sets, read photo by photo, in the same order at every call."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.data import is_stream, open_source, open_stream, stream_of
from chromatune.data.streams import expand_braces
from chromatune.errors import DataError, PhotoError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets-cache"))


def png(number: int, size=(40, 30)) -> bytes:
    colors = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colors).save(file, "png")
    return file.getvalue()


def write_tar(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    """Writes a shard in WebDataset's layout: the files of a sample have its key as their name."""
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for suffix, data in files.items():
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def make_shards(folder: Path, shards: int = 3, photos: int = 7, **files) -> str:
    for shard in range(shards):
        numbers = range(shard * photos, (shard + 1) * photos)
        samples = {f"{n:05d}": {"png": png(n)} | {name: make(n) for name, make in files.items()} for n in numbers}
        write_tar(folder / f"photos-{shard:04d}.tar", samples)
    return str(folder / f"photos-{{0000..{shards - 1:04d}}}.tar")


def test_what_is_a_stream():
    for spec in ("photos.tar", "tar:x", "stream:owner/name", "s3://bucket/a-{0..9}.tar", "a.tar#image=png"):
        assert is_stream(spec)
    for spec in ("photos", "hf:owner/name", "table:a.csv", "tar", "C:/photos"):
        assert not is_stream(spec)


def test_names_of_shards():
    assert expand_braces("a-{008..011}.tar") == ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]
    assert expand_braces("{0..1}/{0..1}.tar") == ["0/0.tar", "0/1.tar", "1/0.tar", "1/1.tar"]
    assert expand_braces("a.tar") == ["a.tar"]
    for none in ("a-{5..2}.tar", "a-{0..99999999}.tar"):
        with pytest.raises(DataError, match="names no shards; accepted"):
            expand_braces(none)


def test_tar_shards_with_texts(tmp_path):
    stream = open_stream(make_shards(tmp_path, txt=lambda n: f"color number {n}".encode()))
    assert (stream.shards, stream.kind, stream.name, stream.has_prompts) == (3, "tar", "photos", True)
    for _ in range(2):
        records = [record for shard in range(3) for record in stream.records(shard)]
        assert [record.item.key for record in records] == [f"photos-{n // 7:04d}.tar/{n:05d}" for n in range(21)]
        assert [record.prompt for record in records] == [f"color number {n}" for n in range(21)]
    expected = np.asarray(Image.open(io.BytesIO(png(8))))
    np.testing.assert_array_equal(records[8].item.read(), expected)


def test_instructions_from_json_and_columns_by_name(tmp_path):
    shards = make_shards(tmp_path, json=lambda n: json.dumps({"caption": f"photo {n}", "words": "other"}).encode())
    assert [record.prompt for record in open_stream(shards).records(1)][:2] == ["photo 7", "photo 8"]
    assert next(open_stream(f"{shards}#prompt=words").records(0)).prompt == "other"
    with pytest.raises(DataError, match="no text in column 'none'; name another"):
        open_stream(f"{shards}#prompt=none")
    with pytest.raises(DataError, match="columns .*'json'.*; name the photo's: #image=COLUMN"):
        open_stream(f"{shards}#image=jpg")


def test_a_hugging_face_data_set_as_a_stream(tmp_path):
    photos = [{"bytes": png(n), "path": None} for n in range(9)]
    prompts = [f"color {n}" for n in range(9)]
    for part in range(3):
        chosen = slice(part * 3, part * 3 + 3)
        some = {"image": photos[chosen], "edit_prompt": prompts[chosen]}
        features = datasets.Features(image=datasets.Image(), edit_prompt=datasets.Value("string"))
        datasets.Dataset.from_dict(some, features=features).to_parquet(tmp_path / f"part-{part}.parquet")
    stream = open_stream(f"stream:{tmp_path}/part-{{0..2}}.parquet")
    assert (stream.shards, stream.kind, stream.name, stream.has_prompts) == (3, "stream", "part", True)
    records = [record for shard in range(3) for record in stream.records(shard)]
    assert [record.item.key for record in records] == [f"{n // 3:05d}/{n % 3:07d}" for n in range(9)]
    assert [record.prompt for record in records] == prompts
    assert records[4].item.read().shape == (30, 40, 3)


def test_photos_drawn_on_the_fly():
    def draw(shards):
        for shard in shards:
            for number in range(3):
                yield {"image": png(10 * shard + number)}

    dataset = datasets.IterableDataset.from_generator(draw, gen_kwargs={"shards": [0, 1]})
    stream = stream_of(dataset)
    assert stream.shards == 2 and not stream.has_prompts
    once, again = ([record.item.read() for record in stream.records(1)] for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_what_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"none: shard 0 cannot be read .*No such file.*; repair it"):
        open_stream(str(tmp_path / "none.tar"))
    (tmp_path / "cut.tar").write_bytes(b"no tar" * 500)
    with pytest.raises(DataError, match="cut: shard 0 cannot be read"):
        open_stream(str(tmp_path / "cut.tar"))
    shards = make_shards(tmp_path)
    whole = (tmp_path / "photos-0002.tar").read_bytes()
    stream = open_stream(shards)
    (tmp_path / "photos-0002.tar").write_bytes(whole[:3000])
    with pytest.raises(DataError, match="photos: shard 2 cannot be read .*; repair it, or leave it out"):
        list(stream.records(2))


@pytest.mark.slow
def test_shards_in_s3(tmp_path, monkeypatch):
    """Over HTTP, from a server on this machine: read from their beginning to their end."""
    s3fs, server = pytest.importorskip("s3fs"), pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    make_shards(tmp_path, txt=lambda n: f"color number {n}".encode())
    server.start()
    try:
        _, port = server.get_host_and_port()
        given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in (given | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}).items():
            monkeypatch.setenv(name, value)
        files = s3fs.S3FileSystem(skip_instance_cache=True)
        files.mkdir("photos")
        for path in tmp_path.glob("*.tar"):
            files.put(str(path), f"photos/{path.name}")
        stream = open_stream("s3://photos/photos-{0000..0002}.tar")
        records = [record for shard in range(3) for record in stream.records(shard)]
        assert [record.prompt for record in records] == [f"color number {n}" for n in range(21)]
        assert records[20].item.read().shape == (30, 40, 3)
        with pytest.raises(DataError, match="shard 0 cannot be read"):
            open_stream("s3://photos/none.tar")
    finally:
        server.stop()


def test_a_photo_that_is_none_is_an_error_of_its_own(tmp_path):
    write_tar(tmp_path / "a.tar", {"0": {"png": png(0)}, "1": {"png": b"no photo"}})
    first, second = open_stream(str(tmp_path / "a.tar")).records(0)
    assert first.item.read().shape == (30, 40, 3)
    with pytest.raises(PhotoError, match=r"a.tar/1"):
        second.item.read()


def test_lists_of_photos_are_not_made_of_streams(tmp_path):
    with pytest.raises(DataError, match="is a stream of photos, which only `chromatune finetune` reads"):
        open_source(make_shards(tmp_path))

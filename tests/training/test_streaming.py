"""Training from a stream: each photo once an epoch, resumed to the batch, in little memory."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from chromatune.data import PhotoItem, Stream, StreamRecord, open_stream
from chromatune.data.items import content_of, read_rgb
from chromatune.errors import DataError, OptionsError
from chromatune.pipeline import PHOTO_DIGITS
from chromatune.training import streaming
from chromatune.training.initial_model import load_initial_model
from chromatune.training.run import train
from chromatune.training.settings import TrainSettings
from chromatune.training.streaming import StreamedPhotos, StreamReader, StreamSampler, is_held_out, split_stream

SETTINGS = TrainSettings(
    batch=4, seed=5, shuffle_buffer=10, dropout=0.1, validation=0.2, validation_photos=3, size_px=32
)
SIZES = ((60, 60), (90, 40), (40, 90), (64, 48), (48, 64))  # width and height, as often


def drawn(number: int) -> np.ndarray:
    """Colors that no other photo has, (H, W, 3) uint8."""
    width, height = SIZES[number % len(SIZES)]
    rows, columns = np.mgrid[0:height, 0:width]
    photo = np.stack([columns * 3, rows * 2, (rows + columns)], axis=-1) % 256
    photo[:8, :8] = (number % 256, 255 - number % 256, 90)
    return photo.astype(np.uint8)


def drawn_stream(shards: int = 3, photos: int = 20, broken: tuple[int, ...] = ()) -> Stream:
    """A stream that is drawn as it is read; some photos of it cannot be read."""

    def records(shard):
        for index in range(photos):
            number = shard * photos + index
            read = partial(read_rgb, b"broken", "broken") if number in broken else partial(drawn, number)
            yield StreamRecord(PhotoItem(f"{shard}/{number}", None, read), f"color {number}")

    return Stream("drawn", "stream", shards, records, True, f"{shards} {photos}")


def trained_keys(stream: Stream, settings: TrainSettings = SETTINGS) -> list[str]:
    keys = [record.item.key for shard in range(stream.shards) for record in stream.records(shard)]
    return [key for key in keys if not is_held_out(key, settings)]


def take(reader: StreamReader, count: int, place=streaming.START) -> list[str]:
    """Keys of the first photos from a place on, and where each block begins."""
    keys: list[str] = []
    for block in reader.blocks(place):
        keys += [record.item.key for _, record in block.records]
        if len(keys) >= count:
            return keys[:count]
    raise AssertionError


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_photo_once_an_epoch_of_one_process(ranks):
    """Three shards: shared out whole to three processes, photo by photo to two."""
    stream, expected = drawn_stream(), trained_keys(drawn_stream())
    assert 35 < len(expected) < 60, "some are held out"
    readers = [StreamReader(stream, SETTINGS, rank, ranks) for rank in range(ranks)]
    epochs = []
    for epoch in range(2):
        keys = []
        for reader in readers:
            for block in reader._epoch(epoch, 0, 0):
                assert len(block.records) <= 10
                keys += [record.item.key for _, record in block.records]
        assert sorted(keys) == sorted(expected)
        epochs.append(keys)
    assert epochs[0] != epochs[1] != expected


def test_reading_begins_at_any_block():
    reader = StreamReader(drawn_stream(), SETTINGS)
    blocks = [block for _, block in zip(range(12), reader.blocks(), strict=False)]
    for start in (3, 7, 11):
        again = next(StreamReader(drawn_stream(), SETTINGS).blocks(blocks[start].place))
        assert [ref for ref, _ in again.records] == [ref for ref, _ in blocks[start].records]


@pytest.fixture
def make(tiny_pipeline, tmp_path):
    """Makes samplers of a stream, which keep their places in one folder: `make(settings, stream=…)`."""
    pipeline = load_initial_model(str(tiny_pipeline())).pipeline

    def sampler(settings=SETTINGS, stream=None, folder="stream", prompts=None, shapes=((32, 32),)):
        return StreamSampler(
            stream or drawn_stream(), {"": "color"} if prompts is None else prompts, pipeline.tokenizer, settings,
            size_px=32, shapes=shapes, vae=pipeline.vae, vae_factor=8, num_train_timesteps=1000,
            photos=StreamedPhotos(tmp_path / folder),
        )  # fmt: skip

    return sampler


def pixels_of(batch) -> bytes:
    return batch.gray_u8.tobytes() + batch.color_u8.tobytes() + batch.rest.noise.numpy().tobytes()


BUCKETS = ((32, 64), (32, 32), (64, 32), (32, 40), (40, 32))


@pytest.mark.parametrize("aspect", ["square", "buckets"])
def test_killed_five_times_equals_uninterrupted(make, tmp_path, monkeypatch, aspect):
    """The batches are the same ones, and each photo comes once an epoch; without the notes it takes longer, no more."""
    monkeypatch.setattr(streaming, "BATCHES_PER_PLACE", 3)
    settings = SETTINGS.model_copy(update={"aspect": aspect, "prompts": "source"})
    shapes = ((32, 32),) if aspect == "square" else BUCKETS
    stream = drawn_stream(broken=(7, 31))
    whole = make(settings, stream, "whole", shapes=shapes)
    expected = [pixels_of(whole.batch(number)) for number in range(40)]
    killed = make(settings, stream, "killed", shapes=shapes)
    number = 0
    for end, back in ((4, 1), (11, 2), (12, 0), (26, 5), (33, 3)):
        while number < end:
            assert pixels_of(killed.batch(number)) == expected[number]
            number += 1
        number -= back  # the last checkpoint was so many batches ago
        killed = make(settings, stream, "killed", shapes=shapes)  # all that it knew is gone but for the files
    for later in range(number, 40):
        assert pixels_of(killed.batch(later)) == expected[later]
    both = [(tmp_path / name / "seen-0-of-1.bin").read_bytes() for name in ("whole", "killed")]
    assert both[0] == both[1]
    for path in (tmp_path / "killed").glob("places*"):
        path.write_bytes(b"damaged\n" + path.read_bytes()[:70])
    assert pixels_of(make(settings, stream, "killed", shapes=shapes).batch(21)) == expected[21]


def test_the_run_notes_each_photo_once_an_epoch(make, tmp_path):
    usable = [key for key in trained_keys(drawn_stream(broken=(7, 31))) if key.split("/")[1] not in ("7", "31")]
    sampler = make(stream=drawn_stream(broken=(7, 31)))
    for number in range(2 * len(usable) // 4):
        sampler.batch(number)
    seen = np.fromfile(tmp_path / "stream" / "seen-0-of-1.bin", np.uint8).reshape(-1, PHOTO_DIGITS // 2)
    expected = sorted(content_of(drawn(int(key.split("/")[1])))[:PHOTO_DIGITS] for key in usable)
    first = [row.tobytes().hex() for row in seen[: len(usable)]]
    assert sorted(first) == expected, "the first epoch, whole"
    assert max(Counter(row.tobytes().hex() for row in seen).values()) == 2
    photos = StreamedPhotos(tmp_path / "stream")
    assert photos.seen == sorted(set(expected)) and photos.count == len(expected)
    assert sorted(sampler._photos.skipped["broken"]) == ["0/7", "1/31"]


def test_several_processes_share_the_stream_and_no_noise(make, tmp_path):
    usable, ranks = trained_keys(drawn_stream()), 3
    samplers = [make() for _ in range(ranks)]
    batches = [[sampler.batch(number, rank, ranks) for number in range(3)] for rank, sampler in enumerate(samplers)]
    noises = {batch.rest.noise[index].numpy().tobytes() for some in batches for batch in some for index in range(4)}
    assert len(noises) == 36
    seen = StreamedPhotos(tmp_path / "stream")
    assert len(seen.seen) == 36 <= len(usable), "none twice"


def test_on_another_number_of_processes_a_new_epoch_begins(make, tmp_path):
    """Nothing says which photos of the epoch that was broken off are still to come; reading anew would take hours."""
    one = make()
    for number in range(18):  # into the second epoch
        one.batch(number)
    sampler = make()
    first = sampler.batch(9, 0, 2)
    assert sampler._place.epoch == 2
    again = make()
    assert pixels_of(again.batch(9, 0, 2)) == pixels_of(first)
    assert pixels_of(again.batch(10, 0, 2)) == pixels_of(sampler.batch(10, 0, 2))


def test_photos_of_a_stream_keep_their_prompts(make):
    sampler = make(SETTINGS.model_copy(update={"dropout": 0.2}))
    texts = []
    for number in range(8):
        batch = sampler.batch(number).rest
        ids = batch.tokens.ids[batch.prompt_of]
        for row, timestep in zip(ids, batch.timesteps, strict=True):
            texts.append("".join(sampler.tokenizer.convert_ids_to_tokens(row, skip_special_tokens=True)))
            assert 0 <= timestep < 1000
    assert 3 < texts.count("") < 22, "dropped"
    assert all(text == "" or text.replace("</w>", "").startswith("color") for text in texts)


def test_no_photo_to_validate_on_or_to_train_with(make):
    with pytest.raises(DataError, match="drawn: no usable photo to validate on with validation=1e-09"):
        split_stream(drawn_stream(), SETTINGS.model_copy(update={"validation": 1e-9}), 16)
    held = SETTINGS.model_copy(update={"validation": 0.999999999})
    with pytest.raises(DataError, match="drawn: no usable photo to train with"):
        split_stream(drawn_stream(), held, 16)
    with pytest.raises(DataError, match="drawn: no photo to train with; give more, or fewer processes"):
        make(held).batch(0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Three tar shards of 20 photos each, with captions."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(3):
        with tarfile.open(folder / f"photos-{shard:06d}.tar", "w") as tar:
            for number in range(shard * 20, shard * 20 + 20):
                file = io.BytesIO()
                Image.fromarray(drawn(number)).save(file, "png")
                for suffix, data in (("png", file.getvalue()), ("txt", f"color {number}".encode())):
                    entry = tarfile.TarInfo(f"{number:05d}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return folder / "photos-{000000..000002}.tar"


def test_a_model_is_trained_from_shards_and_resumes_bit_for_bit(
    shards, tiny_pipeline, tiny_settings, tmp_path, monkeypatch
):
    """Stopped between checkpoints, and resumed by the same call: the weights of an uninterrupted run."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets-cache"))
    changes = {"shuffle_buffer": 10, "validation": 0.2, "validation_photos": 3, "lab_weight": 0.5}
    settings = TrainSettings(**(tiny_settings | changes))

    def run(name, on_row=lambda row: None):
        return train(open_stream(str(shards)), str(tiny_pipeline()), settings, tmp_path / name, on_row=on_row)

    def stop(row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("cut", stop)
    cut = run("cut")
    for name, weight in whole.pipeline.unet.state_dict().items():
        assert torch.equal(weight, cut.pipeline.unet.state_dict()[name])
    assert whole.own_prompts and whole.cache.count == 2 * 7 == len(whole.cache.seen), "one batch is made ahead"
    hashes = {content_of(drawn(number))[:PHOTO_DIGITS] for number in range(60)}
    assert set(whole.cache.seen) <= hashes
    held_out = {content_of(item.read())[:PHOTO_DIGITS] for item in whole.split.validation}
    assert len(held_out) == 3 and not held_out & set(whole.cache.seen)
    fewer = settings.model_copy(update={"photos": 9})
    with pytest.raises(OptionsError, match="of a stream, no number of photos can be chosen"):
        train(open_stream(str(shards)), str(tiny_pipeline()), fewer, tmp_path / "fewer")

"""The latent cache and the order of training, with the official script's bugs as tests."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil

import cv2
import numpy as np
import pytest
import torch

from chromatune.data import content_of, open_source
from chromatune.errors import DataError
from chromatune.pipeline import PHOTO_DIGITS
from chromatune.pipeline.latents import encode_moments, to_pixels
from chromatune.training import dataset
from chromatune.training.dataset import BatchSampler, cache_key, draw_pair, open_cache
from chromatune.training.initial_model import load_initial_model
from chromatune.training.settings import TrainSettings

SETTINGS = TrainSettings(batch=3, cache_variants=3, seed=5, lab_weight=1.0, lab_photos=2, last_share=0.3)


@pytest.fixture(params=["tiny", "kl"])
def pipeline(request, tiny_pipeline):
    return load_initial_model(str(tiny_pipeline(request.param))).pipeline


def make_sampler(pipeline, drawn_photos, root, settings=SETTINGS):
    cache = open_cache(root, open_source(drawn_photos).items, pipeline.vae, 32, settings)
    return BatchSampler(cache, ["colorize", "add color"], pipeline.tokenizer, 1.0, 1000, settings)


def test_cached_latents_are_those_of_the_drawn_pair(pipeline, drawn_photos, tmp_path):
    """Same crop and flip for both halves (the official script's pairs came apart), drawn for each photo alone."""
    sampler = make_sampler(pipeline, drawn_photos, tmp_path)
    cache = sampler.cache
    for photo in (0, 5):
        for variant in range(3):
            gray, color = draw_pair(cache.items[photo].read(), cache.items[photo].key, variant, 32, SETTINGS)
            row = cache.rows[photo] + variant
            with torch.no_grad():
                expected = encode_moments(pipeline.vae, to_pixels(np.stack([gray, color])))
            np.testing.assert_allclose(cache.condition[row], expected[0, :4], atol=5e-3)
            np.testing.assert_allclose(cache.moments[row], expected[1], atol=2e-2)


def test_broken_and_gray_photos_are_named_not_fatal(pipeline, drawn_photos, tmp_path):
    cache = make_sampler(pipeline, drawn_photos, tmp_path).cache
    assert len(cache.items) == 12
    assert cache.skipped == {"broken": ["broken.jpg"], "too small": [], "gray or sepia": ["gray.png"]}


def test_a_photo_is_enlarged_to_twice_its_size_and_no_more(pipeline, tmp_path):
    """As in an evaluation: a model trained at 64 px takes a photo of 32 px, and leaves one of 31."""
    rng = np.random.default_rng(0)
    for side in (31, 32, 80):
        colors = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{side}.png"), cv2.resize(colors, (90, side), interpolation=cv2.INTER_NEAREST))
    cache = open_cache(tmp_path / "cache", open_source(tmp_path).items, pipeline.vae, 64, SETTINGS)
    assert [item.key for item in cache.items] == ["32.png", "80.png"] and cache.skipped["too small"] == ["31.png"]


def count_encodings(monkeypatch):
    """A list that has one more item with every call of the VAE's encoder."""
    calls: list[int] = []

    def encode(*args):
        calls.append(1)
        return encode_moments(*args)

    monkeypatch.setattr(dataset, "encode_moments", encode)
    return calls


def test_encoders_run_once(pipeline, drawn_photos, tmp_path, monkeypatch):
    """The official script encodes both photos, and the empty prompt, again at every step."""
    calls = count_encodings(monkeypatch)
    sampler = make_sampler(pipeline, drawn_photos, tmp_path)
    first = len(calls)
    assert first == 2 * 12
    for number in range(4):
        sampler.batch(number)
    make_sampler(pipeline, drawn_photos, tmp_path).batch(0)
    assert len(calls) == first


def test_a_stale_cache_is_never_used(pipeline, drawn_photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(drawn_photos, folder)
    items = open_source(folder).items
    key = cache_key(items, "vae", 32, SETTINGS)
    changed = [
        cache_key(items, "other vae", 32, SETTINGS),
        cache_key(items, "vae", 64, SETTINGS),
        cache_key(items[1:], "vae", 32, SETTINGS),
        cache_key(items, "vae", 32, SETTINGS.model_copy(update={"gray": "rec709"})),
        cache_key(items, "vae", 32, SETTINGS.model_copy(update={"flip": False})),
        cache_key(items, "vae", 32, SETTINGS, with_grays=True),
    ]
    os.utime(folder / "00.png", (1, 1))  # the photo was replaced under the same name
    changed.append(cache_key(open_source(folder).items, "vae", 32, SETTINGS))
    assert len({key, *changed}) == 8
    assert cache_key(items, "vae", 32, SETTINGS.model_copy(update={"lr": 0.5})) == changed[-1]


def test_an_interrupted_cache_is_completed(pipeline, drawn_photos, tmp_path, monkeypatch):
    whole = make_sampler(pipeline, drawn_photos, tmp_path / "whole").cache
    monkeypatch.setattr(dataset, "PHOTOS_PER_NOTE", 4)

    done = []

    def start_stage(name, length):
        done.append(0)
        assert (name, length) == ("encoding photos", 14)

        def advance():
            done[-1] += 1
            if len(done) == 1 and done[0] == 10:
                raise KeyboardInterrupt

        return advance

    items = open_source(drawn_photos).items
    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path / "cut", items, pipeline.vae, 32, SETTINGS, start_stage)
    calls = count_encodings(monkeypatch)
    cut = open_cache(tmp_path / "cut", items, pipeline.vae, 32, SETTINGS, start_stage)
    assert done == [10, 14]
    assert len(calls) == 2 * (12 - 8), "photos up to the last note are not encoded again"
    np.testing.assert_array_equal(whole.condition, cut.condition)
    np.testing.assert_array_equal(whole.moments, cut.moments)
    assert whole.skipped == cut.skipped
    assert whole.seen == cut.seen == [content_of(item.read())[:PHOTO_DIGITS] for item in whole.items]


def cut(name, keep):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def written(name, data):
    return lambda folder: (folder / name).write_bytes(data)


NOTHING_SKIPPED: dict[str, list[str]] = {"broken": [], "too small": [], "gray or sepia": []}
DAMAGES = [
    cut("condition.npy", -100), cut("moments.npy", 60), cut("condition.npy", 0),
    written("moments.npy", b"\x93NUMPY" * 9),
    written("index.json", b"[]"), written("index.json", b""), written("index.json", b"[" * 200_000),
    written("index.json", json.dumps({"variants": 3, "done": 99, "skipped": NOTHING_SKIPPED}).encode()),
    written("index.json", b'{"variants": 3, "done": 14, "skipped": {"broken": 7}}'),
    lambda folder: (folder / "moments.npy").unlink(),
    lambda folder: np.save(folder / "condition.npy", np.array([object()]), allow_pickle=True),
    lambda folder: np.save(folder / "moments.npy", np.load(folder / "moments.npy")[:, :5]),
    lambda folder: np.save(folder / "condition.npy", np.load(folder / "condition.npy")[..., :2]),
    lambda folder: np.save(folder / "condition.npy", np.load(folder / "condition.npy").astype(np.uint8)),
    lambda folder: np.save(folder / "contents.npy", np.load(folder / "contents.npy")[:, :5]),
    lambda folder: (folder / "contents.npy").unlink(),
    lambda folder: np.save(folder / "condition.npy", np.asfortranarray(np.load(folder / "condition.npy"))),
]  # fmt: skip


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("finished", "spoil"),
    [  # the fast ones: a finished cache with every other damage, one in the making with some of the others
        pytest.param(finished, spoil, marks=[] if number % step == first else [SLOW])
        for finished, step, first in ((True, 2, 0), (False, 4, 1))
        for number, spoil in enumerate(DAMAGES)
    ],
)
def test_a_damaged_cache_is_made_anew(drawn_photos, tiny_pipeline, tmp_path, monkeypatch, spoil, finished):
    """It comes from the photos alone; half a file lengthened with zeros would be trained on without a word."""
    vae, items = load_initial_model(str(tiny_pipeline())).pipeline.vae, open_source(drawn_photos).items
    whole = open_cache(tmp_path, items, vae, 32, SETTINGS)
    condition, moments, seen = whole.condition.copy(), whole.moments.copy(), whole.seen
    folder = whole.folder if finished else whole.folder.rename(whole.folder.with_name(whole.folder.name + ".partial"))
    spoil(folder)
    again = open_cache(tmp_path, items, vae, 32, SETTINGS)
    np.testing.assert_array_equal(again.condition, condition)
    np.testing.assert_array_equal(again.moments, moments)
    assert again.skipped == whole.skipped and again.seen == seen
    assert [path.name for path in tmp_path.iterdir()] == [again.folder.name]


@pytest.mark.parametrize("left", [b"", *(pytest.param(data, marks=SLOW) for data in (b"\x93NUMPY", b"x" * 4000))])
def test_what_a_full_disk_left_before_the_first_usable_photo_is_made_anew(drawn_photos, tiny_pipeline, tmp_path, left):
    vae, source = load_initial_model(str(tiny_pipeline())).pipeline.vae, open_source(drawn_photos)
    items = sorted(source.items, key=lambda item: item.key != "gray.png")  # the gray one first
    whole = open_cache(tmp_path / "whole", items, vae, 32, SETTINGS)
    partial = tmp_path / "cut" / (whole.folder.name + ".partial")
    partial.mkdir(parents=True)
    note = {"variants": SETTINGS.cache_variants, "done": 1, "skipped": {"broken": [], "gray": ["gray.png"]}}
    (partial / "index.json").write_text(json.dumps(note))
    (partial / "condition.npy").write_bytes(left)
    again = open_cache(tmp_path / "cut", items, vae, 32, SETTINGS)
    np.testing.assert_array_equal(again.condition, whole.condition)
    np.testing.assert_array_equal(again.moments, whole.moments)


def test_room_is_taken_before_latents_are_written(drawn_photos, tiny_pipeline, tmp_path, monkeypatch):
    """A file with holes on a full disk would end the process by a signal, without a word."""
    vae, items = load_initial_model(str(tiny_pipeline())).pipeline.vae, open_source(drawn_photos).items
    reserve, taken = os.posix_fallocate, []

    def full(file, offset, length):
        taken.append(length)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="the latent cache cannot be written .No space left on device.; make room"):
        open_cache(tmp_path, items, vae, 32, SETTINGS)
    monkeypatch.setattr(os, "posix_fallocate", reserve)
    cache = open_cache(tmp_path, items, vae, 32, SETTINGS)
    assert taken == [(cache.folder / "condition.npy").stat().st_size]
    assert all(path.stat().st_blocks * 512 >= path.stat().st_size for path in cache.folder.glob("*.npy"))


def test_grays_are_kept_where_a_photo_encoder_needs_them(pipeline, drawn_photos, tmp_path):
    items, settings = open_source(drawn_photos).items, SETTINGS.model_copy(update={"dropout": 0.2})
    assert open_cache(tmp_path, items, pipeline.vae, 32, settings).grays is None
    cache = open_cache(tmp_path, items, pipeline.vae, 32, settings, with_grays=True)
    assert cache.grays is not None
    for photo, variant in ((0, 0), (5, 2)):
        gray, _ = draw_pair(cache.items[photo].read(), cache.items[photo].key, variant, 32, settings)
        np.testing.assert_array_equal(cache.grays[cache.rows[photo] + variant], gray[..., 0])
    sampler = BatchSampler(cache, ["colorize"], pipeline.tokenizer, 1.0, 1000, settings)
    batches = [sampler.batch(number) for number in range(8)]
    has_photo = torch.cat([batch.has_photo for batch in batches])
    there = torch.cat([batch.condition.abs().amax(dim=(1, 2, 3)) > 0 for batch in batches])
    assert torch.equal(has_photo, there) and 0 < has_photo.sum() < len(has_photo)
    grays = batches[0].grays
    assert grays is not None and grays.shape == (3, 32, 32) and grays.dtype == torch.uint8


def test_no_usable_photo_is_an_error(pipeline, drawn_photos, tmp_path):
    items = [item for item in open_source(drawn_photos).items if item.key in ("gray.png", "broken.jpg")]
    with pytest.raises(DataError, match="no usable photo among 2: 1 broken, 1 gray or sepia"):
        open_cache(tmp_path, items, pipeline.vae, 32, SETTINGS)


def equal(first, second):
    pairs = [(value, getattr(second, name)) for name, value in vars(first).items() if value is not None]
    return all(
        torch.equal(one, other)
        for value, known in pairs
        for one, other in (zip(value, known, strict=True) if isinstance(value, tuple) else [(value, known)])
    )


def test_batches_depend_on_seed_and_position_alone(pipeline, drawn_photos, tmp_path):
    """Resuming needs no replay: the official script decodes and throws away what it skips."""
    sampler, again = (make_sampler(pipeline, drawn_photos, tmp_path) for _ in range(2))
    later = [sampler.batch(number) for number in range(6)][5]
    assert equal(later, again.batch(5))
    other = make_sampler(pipeline, drawn_photos, tmp_path, SETTINGS.model_copy(update={"seed": 6}))
    assert not torch.equal(other.batch(5).noise, later.noise)


def test_two_processes_draw_what_one_would_with_twice_the_batch(pipeline, drawn_photos, tmp_path):
    """The official script seeds all processes alike: noise and dropout are the same on each."""
    sampler = make_sampler(pipeline, drawn_photos, tmp_path)
    doubled = make_sampler(pipeline, drawn_photos, tmp_path, SETTINGS.model_copy(update={"batch": 6}))
    ranks = [sampler.batch(2, rank, 2) for rank in (0, 1)]
    assert not torch.equal(ranks[0].noise, ranks[1].noise)
    both = doubled.batch(2)
    for name in ("noise", "timesteps", "latents", "condition"):
        assert torch.equal(torch.cat([getattr(rank, name) for rank in ranks]), getattr(both, name))


def test_each_photo_once_an_epoch_in_another_order(pipeline, drawn_photos, tmp_path):
    sampler = make_sampler(pipeline, drawn_photos, tmp_path)
    first, second = ([sampler.photo_at(epoch * 12 + i) for i in range(12)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(12)) and first != second


def test_prompts_are_drawn_per_step_and_dropout_is_one_draw(pipeline, drawn_photos, tmp_path):
    settings = SETTINGS.model_copy(update={"dropout": 0.2, "lab_weight": 0.0})
    sampler = make_sampler(pipeline, drawn_photos, tmp_path, settings)
    draws = [sampler.draw(position) for position in range(4000)]
    no_text = np.array([prompt == 2 for _, _, prompt, *_ in draws])
    no_image = np.array([image for *_, image, _ in draws])
    assert no_text.mean() == pytest.approx(0.4, abs=0.03) and no_image.mean() == pytest.approx(0.4, abs=0.03)
    assert (no_text & no_image).mean() == pytest.approx(0.2, abs=0.03)
    of_one_photo = {prompt for photo, _, prompt, *_ in draws if photo == 3}
    assert of_one_photo == {0, 1, 2}, "a photo does not keep its prompt"
    at_last = np.mean([timestep == 999 for _, _, _, timestep, *_ in draws])
    assert at_last == pytest.approx(0.3, abs=0.03)
    batch = next(b for b in map(sampler.batch, range(50)) if (b.condition == 0).all(dim=(1, 2, 3)).any())
    assert batch.truth is None


def test_a_photo_that_vanishes_is_named(pipeline, drawn_photos, tmp_path):
    sampler = make_sampler(pipeline, drawn_photos, tmp_path)

    def gone():
        from chromatune.errors import PhotoError

        raise PhotoError("07.png: no such file")

    items = tuple(dataclasses.replace(item, read=gone) for item in sampler.cache.items)
    sampler.cache = dataclasses.replace(sampler.cache, items=items)
    with pytest.raises(DataError, match=r"07.png: no such file; it was readable when the run began"):
        sampler.batch(0)


def test_photos_keep_their_own_prompts_where_asked(pipeline, drawn_photos, tmp_path):
    cache = make_sampler(pipeline, drawn_photos, tmp_path).cache
    own = {item.key: f"color {item.key[:2]}" for item in cache.items}
    settings = SETTINGS.model_copy(update={"dropout": 0.0})
    sampler = BatchSampler(cache, own, pipeline.tokenizer, 1.0, 1000, settings)
    for position in range(30):
        photo, _, prompt, *_ = sampler.draw(position)
        assert sorted(own.values())[prompt] == own[cache.items[photo].key]

"""The latent cache: encoded once, by several processes, completed where it was interrupted, made anew where damaged."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from chromatune.data import content_of, open_source
from chromatune.errors import DataError
from chromatune.pipeline import PHOTO_DIGITS, embed_tokens, tokenize
from chromatune.pipeline.latents import encode_moments, to_pixels
from chromatune.training import embeddings, encoding, latent_cache
from chromatune.training.dataset import BatchSampler
from chromatune.training.embeddings import open_text_cache
from chromatune.training.encoding import cache_key, draw_pair, open_cache
from chromatune.training.initial_model import load_initial_model
from chromatune.training.settings import TrainSettings

SETTINGS = TrainSettings(batch=3, cache_variants=3, seed=5, lab_weight=1.0, lab_photos=2, last_share=0.3)


@pytest.fixture(params=["tiny", "kl"])
def pipeline(request, tiny_pipeline):
    return load_initial_model(str(tiny_pipeline(request.param))).pipeline


@pytest.fixture
def vae(tiny_pipeline):
    return load_initial_model(str(tiny_pipeline())).pipeline.vae


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    """Four parts of the fourteen drawn photos."""
    monkeypatch.setattr(latent_cache, "PHOTOS_PER_PART", 4)
    monkeypatch.setattr(latent_cache, "POLL_SECONDS", 0.01)


def make_cache(pipeline, drawn_photos, root, settings=SETTINGS):
    return open_cache(root, open_source(drawn_photos).items, pipeline.vae, 32, settings)


def latents_of(cache):
    """All latents of a cache by photo's key, variant and name."""
    return {
        (item.key, variant, name): values
        for photo, item in enumerate(cache.items)
        for variant in range(cache.variants)
        for name, values in cache.read(photo, variant).items()
    }


def assert_same_latents(one, other):
    first, second = latents_of(one), latents_of(other)
    assert first.keys() == second.keys() and len(first) > 0
    for key, values in first.items():
        np.testing.assert_array_equal(values, second[key])
    assert one.skipped == other.skipped and one.seen == other.seen


def test_cached_latents_are_those_of_the_drawn_pair(pipeline, drawn_photos, tmp_path):
    """Same crop and flip for both halves (the official script's pairs came apart), drawn for each photo alone."""
    cache = make_cache(pipeline, drawn_photos, tmp_path)
    for photo in (0, 5):
        for variant in range(3):
            gray, color = draw_pair(cache.items[photo].read(), cache.items[photo].key, variant, 32, SETTINGS)
            with torch.no_grad():
                expected = encode_moments(pipeline.vae, to_pixels(np.stack([gray, color])))
            stored = cache.read(photo, variant)
            np.testing.assert_allclose(stored["condition"], expected[0, :4], atol=5e-3)
            np.testing.assert_allclose(stored["moments"], expected[1], atol=2e-2)


def test_broken_and_gray_photos_are_named_not_fatal(pipeline, drawn_photos, tmp_path):
    cache = make_cache(pipeline, drawn_photos, tmp_path)
    assert len(cache.items) == 12
    assert cache.skipped == {"broken": ["broken.jpg"], "too small": [], "gray or sepia": ["gray.png"], "too long": []}


def test_a_photo_is_enlarged_to_twice_its_size_and_no_more(pipeline, tmp_path):
    """As in an evaluation: a model trained at 64 px takes a photo of 32 px, and leaves one of 31."""
    rng = np.random.default_rng(0)
    for side in (31, 32, 80):
        colors = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{side}.png"), cv2.resize(colors, (90, side), interpolation=cv2.INTER_NEAREST))
    cache = open_cache(tmp_path / "cache", open_source(tmp_path).items, pipeline.vae, 64, SETTINGS)
    assert [item.key for item in cache.items] == ["32.png", "80.png"] and cache.skipped["too small"] == ["31.png"]


def count_encodings(monkeypatch):
    """A list of how many pictures each call of the VAE's encoder got."""
    calls: list[int] = []

    def encode(vae, pixels):
        calls.append(len(pixels))
        return encode_moments(vae, pixels)

    monkeypatch.setattr(encoding, "encode_moments", encode)
    return calls


def test_encoders_run_once(pipeline, drawn_photos, tmp_path, monkeypatch):
    """The official script encodes both photos, and the empty prompt, again at every step."""
    calls = count_encodings(monkeypatch)
    cache = make_cache(pipeline, drawn_photos, tmp_path)
    assert calls == [2 * 3] * 12, "both halves of a photo's variants in one call"
    sampler = BatchSampler(cache, ["colorize", "add color"], pipeline.tokenizer, 1.0, 1000, SETTINGS)
    for number in range(4):
        sampler.batch(number)
    make_cache(pipeline, drawn_photos, tmp_path)
    assert len(calls) == 12


def test_a_stale_cache_is_never_used(pipeline, drawn_photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(drawn_photos, folder)
    items, square = open_source(folder).items, [(32, 32)]
    key = cache_key(items, "vae", square, SETTINGS)
    changed = [
        cache_key(items, "other vae", square, SETTINGS),
        cache_key(items, "vae", [(64, 64)], SETTINGS),
        cache_key(items[1:], "vae", square, SETTINGS),
        cache_key(items, "vae", square, SETTINGS.model_copy(update={"gray": "rec709"})),
        cache_key(items, "vae", square, SETTINGS.model_copy(update={"flip": False})),
        cache_key(items, "vae", square, SETTINGS.model_copy(update={"cache": "off"})),
        cache_key(items, "vae", square, SETTINGS, with_grays=True),
    ]
    os.utime(folder / "00.png", (1, 1))  # the photo was replaced under the same name
    changed.append(cache_key(open_source(folder).items, "vae", square, SETTINGS))
    assert len({key, *changed}) == 9
    assert cache_key(items, "vae", square, SETTINGS.model_copy(update={"lr": 0.5})) == changed[-1]


def test_an_interrupted_cache_is_completed(pipeline, drawn_photos, tmp_path, monkeypatch):
    whole = make_cache(pipeline, drawn_photos, tmp_path / "whole")
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
    assert len(calls) == 12 - 8, "photos of complete parts are not encoded again"
    assert_same_latents(whole, cut)
    assert cut.seen == [content_of(item.read())[:PHOTO_DIGITS] for item in whole.items]


def in_threads(function, ranks):
    """Calls `function(rank)` for all ranks at once; the results."""
    results = {}
    threads = [threading.Thread(target=lambda rank=rank: results.update({rank: function(rank)})) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in ranks]


def test_processes_share_the_encoding_and_need_no_barrier(vae, drawn_photos, tmp_path, monkeypatch):
    """One process encoded for all, while the others waited at a barrier, whose ten minutes ended the run."""
    items = open_source(drawn_photos).items
    whole = open_cache(tmp_path / "one", items, vae, 32, SETTINGS)
    made: list[tuple[int, int]] = []
    write = encoding._write_part

    def write_part(plan, part, drawn):
        made.append((part, threading.get_ident()))
        write(plan, part, drawn)

    monkeypatch.setattr(encoding, "_write_part", write_part)

    def work(rank):
        return open_cache(tmp_path / "two", items, vae, 32, SETTINGS, rank=rank, ranks=2)

    both = in_threads(work, [0, 1])
    for cache in both:
        assert_same_latents(whole, cache)
    assert sorted(part for part, _ in made) == [0, 1, 2, 3], "no part twice"
    assert len({thread for _, thread in made}) == 2 and len({t for part, t in made if part % 2 == 0}) == 1


def test_what_another_process_never_makes_is_taken_over(vae, drawn_photos, tmp_path, monkeypatch):
    monkeypatch.setattr(latent_cache, "PATIENCE_SECONDS", 0.02)
    items = open_source(drawn_photos).items
    whole = open_cache(tmp_path / "one", items, vae, 32, SETTINGS)
    assert_same_latents(whole, open_cache(tmp_path / "two", items, vae, 32, SETTINGS, rank=1, ranks=3))


def cut(keep):
    return lambda path: path.write_bytes(path.read_bytes()[:keep])


def changed(change):
    """Replaces arrays of a part, and writes it as it should be otherwise."""

    def spoil(path):
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            notes = file.metadata()
        save_file(load_file(path) | change(load_file(path)), path, notes)

    return spoil


def noted(notes):
    return lambda path: save_file(load_file(path), path, notes)


CONDITION, MOMENTS, PHOTOS, CONTENTS = (f"{name}.32x32" for name in ("condition", "moments", "photos", "contents"))
DAMAGES = [
    cut(-100), cut(60), cut(0),
    lambda path: path.unlink(),
    lambda path: path.write_bytes(b"\x93NUMPY" * 900),
    noted(None), noted({"skipped": "[]"}), noted({"skipped": "[" * 100_000}), noted({"skipped": '{"broken": 7}'}),
    noted({"skipped": '{"broken": ["00.png"], "too small": [], "gray or sepia": [], "too long": []}'}),
    changed(lambda arrays: {MOMENTS: arrays[MOMENTS][:, :3]}),
    changed(lambda arrays: {CONDITION: arrays[CONDITION][..., :2]}),
    changed(lambda arrays: {CONDITION: arrays[CONDITION].astype(np.float32)}),
    changed(lambda arrays: {CONDITION: arrays[CONDITION][:-1]}),
    changed(lambda arrays: {CONTENTS: arrays[CONTENTS][:, :5]}),
    changed(lambda arrays: {PHOTOS: arrays[PHOTOS] + 1}),
]  # fmt: skip


@pytest.mark.parametrize("spoil", DAMAGES)
def test_a_damaged_part_is_made_anew(drawn_photos, vae, tmp_path, monkeypatch, spoil):
    """It comes from the photos alone, and the sound parts stay."""
    items = open_source(drawn_photos).items
    whole = open_cache(tmp_path / "whole", items, vae, 32, SETTINGS)
    shutil.copytree(tmp_path / "whole", tmp_path / "spoiled")
    spoil(tmp_path / "spoiled" / whole.folder.name / "part-00001.safetensors")
    calls = count_encodings(monkeypatch)
    assert_same_latents(whole, open_cache(tmp_path / "spoiled", items, vae, 32, SETTINGS))
    assert len(calls) == 4
    assert len(list((tmp_path / "spoiled" / whole.folder.name).iterdir())) == 4, "nothing else is left"


def test_a_full_disk_is_said_in_one_line(drawn_photos, vae, tmp_path, monkeypatch):
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(encoding, "atomic_write", full)
        with pytest.raises(DataError, match="the latent cache cannot be written .No space left on device.; make room"):
            open_cache(tmp_path, open_source(drawn_photos).items, vae, 32, SETTINGS)
    assert open_cache(tmp_path, open_source(drawn_photos).items, vae, 32, SETTINGS).count == 12


def test_grays_are_kept_where_a_photo_encoder_needs_them(pipeline, drawn_photos, tmp_path):
    items, settings = open_source(drawn_photos).items, SETTINGS.model_copy(update={"dropout": 0.2})
    assert "grays" not in open_cache(tmp_path, items, pipeline.vae, 32, settings).read(0, 0)
    cache = open_cache(tmp_path, items, pipeline.vae, 32, settings, with_grays=True)
    for photo, variant in ((0, 0), (5, 2)):
        gray, _ = draw_pair(cache.items[photo].read(), cache.items[photo].key, variant, 32, settings)
        np.testing.assert_array_equal(cache.read(photo, variant)["grays"], gray[..., 0])
    sampler = BatchSampler(cache, ["colorize"], pipeline.tokenizer, 1.0, 1000, settings)
    batches = [sampler.batch(number).to(torch.device("cpu")) for number in range(8)]
    has_photo = torch.cat([batch.has_photo for batch in batches])
    there = torch.cat([batch.condition.abs().amax(dim=(1, 2, 3)) > 0 for batch in batches])
    assert torch.equal(has_photo, there) and 0 < has_photo.sum() < len(has_photo)
    grays = batches[0].grays
    assert grays is not None and grays.shape == (3, 32, 32) and grays.dtype == torch.uint8


def test_no_usable_photo_is_an_error(pipeline, drawn_photos, tmp_path):
    items = [item for item in open_source(drawn_photos).items if item.key in ("gray.png", "broken.jpg")]
    with pytest.raises(DataError, match="no usable photo among 2: 1 broken, 1 gray or sepia"):
        open_cache(tmp_path, items, pipeline.vae, 32, SETTINGS)


def test_prompts_are_read_once(pipeline, tmp_path, monkeypatch):
    """The text encoder is asked once for each prompt, whatever the run's length, and never in the next run."""
    monkeypatch.setattr(embeddings, "PROMPTS_PER_PART", 2)
    tokens = tokenize(pipeline.tokenizer, ["colorize", "add color", "make it red", "", "a photo"])
    with torch.no_grad():
        expected = embed_tokens(pipeline.text_encoder, tokens)
    asked = []

    def embed(text_encoder, some):
        asked.append(len(some.ids))
        return embed_tokens(text_encoder, some)

    monkeypatch.setattr(embeddings, "embed_tokens", embed)

    def work(rank):
        return open_text_cache(tmp_path, tokens, pipeline.text_encoder, rank=rank, ranks=2)

    caches = in_threads(work, [0, 1])
    assert sorted(asked) == [1, 2, 2]
    for cache in caches:
        torch.testing.assert_close(cache.rows([4, 0, 3]), expected[[4, 0, 3]], atol=2e-3, rtol=2e-3)
    spoiled = caches[0].folder / "part-00001.safetensors"
    spoiled.unlink()  # others have it in their memory
    spoiled.write_bytes(b"")
    again = open_text_cache(tmp_path, tokens, pipeline.text_encoder)
    assert len(asked) == 4 and torch.equal(again.rows(range(5)), caches[1].rows(range(5)))


def test_a_part_that_cannot_be_read_again_ends_the_run() -> None:
    """Guards against waiting for it for good."""
    with pytest.raises(DataError, match="just written cannot be read again"):
        latent_cache.share_parts(2, lambda part: part == 0, lambda parts: None, 0, 1)

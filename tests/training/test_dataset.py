"""The order of training and its batches, with the official script's bugs as tests."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from chromatune.data import bucket_shapes, open_source
from chromatune.errors import DataError
from chromatune.training.dataset import BatchSampler, PhotoOrder
from chromatune.training.encoding import open_cache
from chromatune.training.initial_model import load_initial_model
from chromatune.training.machines import Share
from chromatune.training.settings import TrainSettings

# Width to height of what people have: panoramas, films, screens, prints, squares, and the same upright
ELEVEN = ((4, 1), (3, 1), (21, 9), (16, 9), (3, 2), (1, 1), (4, 5), (3, 4), (2, 3), (9, 16), (1, 4))
SETTINGS = TrainSettings(batch=3, cache_variants=3, seed=5, lab_weight=1.0, lab_photos=2, last_share=0.3)


@pytest.fixture(params=["tiny", "kl"])
def pipeline(request, tiny_pipeline):
    return load_initial_model(str(tiny_pipeline(request.param))).pipeline


def make_sampler(pipeline, drawn_photos, root, settings=SETTINGS):
    cache = open_cache(root, open_source(drawn_photos).items, pipeline.vae, 32, settings)
    return BatchSampler(cache, ["colorize", "add color"], pipeline.tokenizer, 1.0, 1000, settings)


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
    first, second = ([sampler.order.batch(epoch * 12 + i, 1)[0][0] for i in range(12)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(12)) and first != second


def test_prompts_are_drawn_per_step_and_dropout_is_one_draw(pipeline, drawn_photos, tmp_path):
    settings = SETTINGS.model_copy(update={"dropout": 0.2, "lab_weight": 0.0})
    sampler = make_sampler(pipeline, drawn_photos, tmp_path, settings)
    draws = [sampler.draw(position, position % 12) for position in range(4000)]
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
        photo, _, prompt, *_ = sampler.draw(position, position % 12)
        assert sorted(own.values())[prompt] == own[cache.items[photo].key]


GROUPS = [np.arange(0, 7), np.arange(7, 8), np.empty(0, np.int64), np.arange(8, 40)]


def group_of(photo):
    return next(index for index, group in enumerate(GROUPS) if photo in group)


def test_a_batch_is_of_one_bucket_and_photos_come_equally_often():
    """Whatever the buckets' sizes: in 40 batches of 4 of 40 photos, each comes four times."""
    order = PhotoOrder(GROUPS, seed=3)
    batches = [order.batch(number, 4) for number in range(80)]
    assert all(len({group_of(photo) for photo, _ in batch}) == 1 for batch in batches)
    for turn in (batches[:40], batches[40:]):
        counts = np.bincount([photo for batch in turn for photo, _ in batch], minlength=40)
        assert (counts == 4).all()
    for group in (0, 3):  # within a bucket, each photo once an epoch, in another order each time
        row = [pair for batch in batches for pair in batch if group_of(pair[0]) == group]
        epochs = [[photo for photo, number in row if number == epoch] for epoch in range(2)]
        assert [sorted(epoch) for epoch in epochs] == [GROUPS[group].tolist()] * 2 and epochs[0] != epochs[1]


def test_no_bucket_runs_ahead():
    order = PhotoOrder(GROUPS, seed=3)
    counts = np.zeros(4)
    for number in range(40):
        counts[group_of(order.batch(number, 4)[0][0])] += 1
        expected = (number + 1) * np.array([7, 1, 0, 32]) / 40
        assert (np.abs(counts - expected) <= 1.5).all()


def test_batches_of_buckets_are_exact_under_resume_and_several_processes():
    whole = [PhotoOrder(GROUPS, seed=3).batch(number, 4) for number in range(60)]
    resumed = PhotoOrder(GROUPS, seed=3)
    assert [resumed.batch(number, 4) for number in (37, 59, 5)] == [whole[number] for number in (37, 59, 5)]
    two = PhotoOrder(GROUPS, seed=3)
    assert [two.batch(n, 2, 0, 2) + two.batch(n, 2, 1, 2) for n in range(60)] == whole


@pytest.fixture(scope="module")
def photos_of_all_shapes(tmp_path_factory):
    """A folder of 22 colored photos, two of each of eleven aspect ratios, and one too long."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(1)
    for number, (across, down) in enumerate([*ELEVEN, *ELEVEN, (9, 1)]):
        width, height = round(120 * (across / down) ** 0.5), round(120 * (down / across) ** 0.5)
        colors = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        photo = cv2.resize(colors, (width, height), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / f"{number:02d}-{across}-{down}.png"), photo)
    return folder


@pytest.mark.parametrize("cache_setting", ["on", "off"])
def test_photos_of_eleven_aspect_ratios_make_batches_of_their_own_shapes(
    tiny_pipeline, photos_of_all_shapes, tmp_path, cache_setting
):
    pipeline = load_initial_model(str(tiny_pipeline())).pipeline
    settings = SETTINGS.model_copy(
        update={"aspect": "buckets", "cache": cache_setting, "batch": 2, "cache_variants": 1}
    )
    shapes = bucket_shapes(64, 8)
    items = open_source(photos_of_all_shapes).items
    cache = open_cache(tmp_path, items, pipeline.vae, 64, settings, shapes=shapes, with_grays=True)
    assert cache.count == 22 and cache.skipped["too long"] == ["22-9-1.png"]

    def make():
        return BatchSampler(
            cache, ["colorize"], pipeline.tokenizer, 1.0, 1000, settings, vae=pipeline.vae, with_grays=True
        )

    sampler, keys, device = make(), [], torch.device("cpu")
    for number in range(22):
        batch = sampler.batch(number).to(device)
        photos = [photo for photo, _ in sampler.order.batch(number, 2)]
        height, width = shapes[cache.buckets[photos[0]]]
        assert batch.grays is not None and batch.truth is not None
        assert batch.grays.shape == (2, height, width) and batch.truth.shape == (2, 3, height, width)
        assert batch.latents.shape == batch.noise.shape == batch.condition.shape == (2, 4, height // 8, width // 8)
        keys += [cache.items[photo].key for photo in photos]
    assert sorted(keys) == sorted([item.key for item in cache.items] * 2)
    assert len({cache.buckets[photo] for photo in range(22)}) >= 9
    assert equal(make().batch(17).to(device), sampler.batch(17).to(device)), "exact under resume"


def test_without_a_cache_each_epoch_has_crops_and_grays_of_its_own(tiny_pipeline, drawn_photos, tmp_path):
    """Four crops a photo is all that a run of any length saw."""
    pipeline = load_initial_model(str(tiny_pipeline())).pipeline
    settings = SETTINGS.model_copy(update={"cache": "off", "batch": 12})
    items = open_source(drawn_photos).items
    cache = open_cache(tmp_path, items, pipeline.vae, 32, settings)
    assert all(path.stat().st_size < 4000 for path in cache.folder.iterdir()), "no latents are kept"

    def make():
        return BatchSampler(cache, ["colorize"], pipeline.tokenizer, 1.0, 1000, settings, vae=pipeline.vae)

    sampler = make()
    crops: dict[int, set[bytes]] = {}
    for epoch in range(6):
        batch = sampler.batch(epoch)
        for (photo, number), color in zip(sampler.order.batch(epoch, 12), batch.color_u8, strict=True):
            assert number == epoch
            crops.setdefault(photo, set()).add(color.tobytes())
    assert all(len(different) == 6 for different in crops.values())
    device = torch.device("cpu")
    assert equal(make().batch(5).to(device), sampler.batch(5).to(device)), "exact under resume"


def test_latents_encoded_on_the_fly_are_those_of_the_cache(pipeline, drawn_photos, tmp_path):
    """The first epoch without a cache has the first variants of one."""
    changes = {"cache_variants": 1, "batch": 12, "dropout": 0.1}
    kept = make_sampler(pipeline, drawn_photos, tmp_path, SETTINGS.model_copy(update=changes))
    settings = SETTINGS.model_copy(update=changes | {"cache": "off"})
    cache = open_cache(tmp_path, open_source(drawn_photos).items, pipeline.vae, 32, settings)
    texts = ["colorize", "add color"]
    sampler = BatchSampler(cache, texts, pipeline.tokenizer, 1.0, 1000, settings, vae=pipeline.vae)
    one, other = (each.batch(0).to(torch.device("cpu")) for each in (kept, sampler))
    for name in ("noise", "timesteps", "has_photo", "prompt_of", "truth"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    for name in ("latents", "condition"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=2e-2, rtol=2e-2)


def test_machines_without_a_common_disk_have_photos_of_their_own(tiny_pipeline, drawn_photos, tmp_path):
    """Each encodes its share; together they train with each photo once an epoch, and none with the other's noise."""
    pipeline = load_initial_model(str(tiny_pipeline())).pipeline
    settings = SETTINGS.model_copy(update={"lab_weight": 0.0, "batch": 1})
    items, keys, noises = open_source(drawn_photos).items, [], set()
    for rank in range(4):  # two processes on each of two machines
        share = Share(rank % 2, 2, rank // 2, 2)
        root = tmp_path / f"machine{share.machine}"
        cache = open_cache(root, share.photos(items), pipeline.vae, 32, settings)
        sampler = BatchSampler(cache, ["colorize"], pipeline.tokenizer, 1.0, 1000, settings)
        sampler.share = share.within
        for number in range(3):
            batch = sampler.batch(number, rank, 4).to(torch.device("cpu"))
            noises.add(batch.noise.numpy().tobytes())
            assert share.within is not None
            photo, epoch = sampler.order.batch(number, 1, *share.within)[0]
            assert epoch == 0
            keys.append(cache.items[photo].key)
    assert len(set(keys)) == 12 and len(noises) == 12

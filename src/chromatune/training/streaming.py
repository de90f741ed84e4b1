"""Training from a stream of photos: batches in an order that the seed decides, with nothing kept but a buffer.

An epoch's shards are shuffled, and shared out among the processes; the photos of consecutive shards are read in blocks
(`shuffle_buffer`), and each block is shuffled as a whole. All of it follows from the seed, so a run can begin at any
batch. What a process writes beside (`stream/` in the run's folder) only saves it from reading from the beginning: the
place in the stream of some of its batches, and the hashes of the photos that it has trained with.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from chromatune.data import PhotoItem, Shape, SkippedPhoto, Split, Stream, StreamRecord, content_of, read_usable
from chromatune.errors import DataError, printable
from chromatune.files import prefetch
from chromatune.pipeline import PHOTO_DIGITS, tokenize
from chromatune.training.dataset import Draw, PixelBatch, draw_at, pixel_batch
from chromatune.training.embeddings import TextCache
from chromatune.training.encoding import draw_pair, read_for_training
from chromatune.training.latent_cache import SKIP_REASONS
from chromatune.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MOST_READERS = 8  # threads that decode photos ahead of training
BATCHES_PER_PLACE = 8  # between two places that are written down: as many are read again where a run goes on
MOST_SKIPPED_KEPT = 1000  # keys of skipped photos, of each reason
MOST_LOOKED_AT = 100_000  # photos, for those to validate on


class Ref(NamedTuple):
    """A photo of the stream: number of its shard, its number there, and the epoch that it is read in."""

    shard: int
    number: int
    epoch: int


class Place(NamedTuple):
    """Where a batch begins: a block by its first photo, how much of it is taken, and what waits from earlier on."""

    epoch: int
    turn: int  # of the shard among this process's in that epoch
    photo: int  # its number in that shard
    taken: int  # photos of the block, shuffled, that batches before have taken
    waiting: tuple[Ref, ...]  # read already, in buckets whose batch is not full


START = Place(0, 0, 0, 0, ())


@dataclass(frozen=True)
class StreamedPhotos:
    """What a run from a stream has trained with so far."""

    folder: Path
    skipped: dict[str, list[str]] = field(default_factory=lambda: {reason: [] for reason in SKIP_REASONS})

    @property
    def seen(self) -> list[str]:
        """The content hash of each photo, once, cut to its first digits."""
        width = PHOTO_DIGITS // 2
        hashes = [np.empty((0, width), np.uint8)]
        for path in sorted(self.folder.glob("seen-*.bin")):
            found = np.fromfile(path, np.uint8)
            hashes.append(found[: len(found) // width * width].reshape(-1, width))
        return [row.tobytes().hex() for row in np.unique(np.concatenate(hashes), axis=0) if row.any()]

    @property
    def count(self) -> int:
        """The number of different photos."""
        return len(self.seen)


def is_held_out(key: str, settings: TrainSettings) -> bool:
    """Return whether a photo is never trained with: a share of all keys, by their hash."""
    digest = hashlib.sha256(f"{settings.seed}/held out/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < settings.validation * 2**64


def split_stream(stream: Stream, settings: TrainSettings, min_side_px: int) -> tuple[Split, dict[str, str]]:
    """Return photos of a stream to validate on, and as many that are trained with; and the prompts of all of them.

    The stream is read from its beginning until there are `validation_photos` of each.

    Raises:
        DataError: there is none of one kind.
    """
    wanted, prompts = settings.validation_photos, {}
    found: dict[bool, list[PhotoItem]] = {True: [], False: []}
    for looked_at, (item, prompt) in enumerate(
        itertools.chain.from_iterable(map(stream.records, range(stream.shards)))
    ):
        group = found[is_held_out(item.key, settings)]
        if len(group) < wanted and not isinstance(read_usable(item, min_side_px), SkippedPhoto):
            group.append(item)
            prompts[item.key] = prompt
        if min(map(len, found.values())) == wanted or looked_at == MOST_LOOKED_AT:
            break
    if not all(found.values()):
        kind = "validate on" if found[False] else "train with"
        raise DataError(
            f"{printable(stream.name)}: no usable photo to {kind} with validation={settings.validation}; give more "
            "color photos, or another share"
        )
    digest = hashlib.sha256(f"{stream.digest}/{settings.seed}/{settings.validation}".encode()).hexdigest()[:16]
    return Split(tuple(found[False]), tuple(found[True]), digest), prompts


class _Block(NamedTuple):
    place: Place  # of its first photo, nothing taken
    records: list[tuple[Ref, StreamRecord]]  # shuffled


class StreamReader:
    """The photos that one process trains with, in blocks: each photo of an epoch is in one block of one process.

    Where the processes do not divide the shards evenly, each reads all shards and takes every so many photos.
    """

    def __init__(self, stream: Stream, settings: TrainSettings, rank: int = 0, ranks: int = 1) -> None:
        self.stream, self.settings, self.rank, self.ranks = stream, settings, rank, ranks
        self.whole_shards = stream.shards % ranks == 0

    def blocks(self, place: Place = START) -> Iterator[_Block]:
        """Yield blocks without end, from the one that begins at a place.

        Raises:
            DataError: a shard cannot be read, or an epoch has no photo.
        """
        epoch, turn, index = place[:3]
        while True:
            found = False
            for block in self._epoch(epoch, turn, index):
                found = True
                yield block
            if not found and turn == index == 0:
                raise DataError(f"{printable(self.stream.name)}: no photo to train with; give more, or fewer processes")
            epoch, turn, index = epoch + 1, 0, 0

    def shards_of(self, epoch: int) -> list[int]:
        """Return the shards that this process reads in an epoch, in their order."""
        rng = np.random.default_rng((self.settings.seed, 4, epoch))
        order = [int(shard) for shard in rng.permutation(self.stream.shards)]
        return order[self.rank :: self.ranks] if self.whole_shards else order

    def _epoch(self, epoch: int, first_turn: int, first_index: int) -> Iterator[_Block]:
        shards, records = self.shards_of(epoch), []
        place = Place(epoch, first_turn, first_index, 0, ())
        for turn in range(first_turn, len(shards)):
            for index, record in enumerate(self.stream.records(shards[turn])):
                if turn == first_turn and index < first_index:
                    continue
                if not self.whole_shards and index % self.ranks != self.rank:
                    continue
                if is_held_out(record.item.key, self.settings):
                    continue
                records.append((Ref(shards[turn], index, epoch), record))
                if len(records) == self.settings.shuffle_buffer:
                    yield self._shuffled(place, records)
                    place, records = Place(epoch, turn, index + 1, 0, ()), []
        if records:
            yield self._shuffled(place, records)

    def _shuffled(self, place: Place, records: list[tuple[Ref, StreamRecord]]) -> _Block:
        rng = np.random.default_rng((self.settings.seed, 5, *place[:3], self.rank))
        return _Block(place, [records[index] for index in rng.permutation(len(records))])

    def fetch(self, refs: Sequence[Ref]) -> list[tuple[Ref, StreamRecord]]:
        """Return single photos, in the order given; their shards are read up to them."""
        found: dict[tuple[int, int], StreamRecord] = {}
        for shard in sorted({ref.shard for ref in refs}):
            wanted = {ref.number for ref in refs if ref.shard == shard}
            for index, record in enumerate(itertools.islice(self.stream.records(shard), max(wanted) + 1)):
                if index in wanted:
                    found[shard, index] = record
        missing = next((ref for ref in refs if ref[:2] not in found), None)
        if missing is not None:
            raise DataError(f"{printable(self.stream.name)}: shard {missing.shard} is shorter than when the run began")
        return [(ref, found[ref[:2]]) for ref in refs]


class _Ready(NamedTuple):
    """A photo that is read and drawn, and waits for its batch."""

    ref: Ref
    prompt: str
    content: bytes  # the first bytes of its content hash
    gray: np.ndarray  # (H, W, 3) uint8
    color: np.ndarray  # (H, W, 3) uint8


class StreamSampler:
    """Batches of a run by number, from a stream. To go back in it, or far ahead, takes reading again."""

    texts: TextCache | None = None  # embeddings of the prompts to draw from, where they are kept

    def __init__(
        self, stream: Stream, prompts: Sequence[str] | Mapping[str, str], tokenizer: CLIPTokenizer,
        settings: TrainSettings, *, size_px: int, shapes: Sequence[Shape], vae: Any, vae_factor: int,
        num_train_timesteps: int, photos: StreamedPhotos, with_grays: bool = False,
    ) -> None:  # fmt: skip
        """`prompts` are those to draw from, or a mapping of any kind where each photo has its own."""
        self.stream, self.settings, self.tokenizer = stream, settings, tokenizer
        self.own_prompt = prompts if isinstance(prompts, Mapping) else None
        known = sorted(set(prompts.values())) if isinstance(prompts, Mapping) else list(prompts)
        self.prompt_count = 1 if self.own_prompt is not None else len(known)
        self.tokens = tokenize(tokenizer, [*known, ""])
        self.offset = 0  # pairs before batch 0; not 0 where a run goes on with other batches, or on other processes
        self._size_px, self._shapes, self._with_grays = size_px, tuple(shapes), with_grays
        self._vae, self._vae_factor, self._last_timestep = vae, vae_factor, num_train_timesteps - 1
        self._photos = photos
        self._next = -1  # number of the batch that `_batches` gives next
        self._batches: Iterator[tuple[list[_Ready], Place]] = iter(())
        self._place = START
        self._readers = ThreadPoolExecutor(max(1, min(MOST_READERS, os.cpu_count() or 1)))
        self._ahead = ThreadPoolExecutor(1)  # reads the next block while this one is used

    def batch(self, number: int, rank: int = 0, ranks: int = 1) -> PixelBatch:
        """Make batch `number` (passes, not updates) of process `rank` of `ranks`, on the CPU.

        Raises:
            DataError: a shard cannot be read.
        """
        size = self.settings.batch
        first = self.offset + (number * ranks + rank) * size
        number += self.offset // (ranks * size)
        ready = self._take(number, rank, ranks)
        draws = [self._draw(first + index) for index in range(size)]
        return pixel_batch(
            [(each.gray, each.color) for each in ready], draws, self._words(ready, draws), self._vae, self._vae_factor,
            self._vae.config.scaling_factor, self.settings, self._with_grays,
        )  # fmt: skip

    def _draw(self, position: int) -> Draw:
        return draw_at(position, position, 1, self.prompt_count, self._last_timestep, self.settings)

    def _words(self, ready: Sequence[_Ready], draws: Sequence[Draw]) -> dict[str, Any]:
        if self.own_prompt is None:
            prompts, places = np.unique([draw.prompt for draw in draws], return_inverse=True)
            tokens = self.tokens.rows(torch.from_numpy(prompts))
            embeds = None if self.texts is None else self.texts.rows(prompts)
            return {"tokens": tokens, "prompt_of": torch.from_numpy(places), "embeds": embeds}
        texts = ["" if draw.prompt == 1 else each.prompt for each, draw in zip(ready, draws, strict=True)]
        different = sorted(set(texts))
        prompt_of = torch.tensor([different.index(text) for text in texts])
        return {"tokens": tokenize(self.tokenizer, different), "prompt_of": prompt_of, "embeds": None}

    # -----------------------------------------------------------------------------------------------------------------
    # Order

    def _take(self, number: int, rank: int, ranks: int) -> list[_Ready]:
        """Return the photos of a batch; write down what they are, and now and then where they lie."""
        if number != self._next:
            self._seek(number, rank, ranks)
        if number % BATCHES_PER_PLACE == 0:
            self._note(number, rank, ranks)
        ready, self._place = next(self._batches)
        self._next = number + 1
        path = self._photos.folder / f"seen-{rank}-of-{ranks}.bin"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            data = b"".join(each.content for each in ready)
            os.lseek(descriptor, number * len(data), os.SEEK_SET)
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
        return ready

    def _seek(self, number: int, rank: int, ranks: int) -> None:
        """Go to a batch: to the last place before it that is known, and from there on by reading."""
        self._photos.folder.mkdir(parents=True, exist_ok=True)
        known = self._known_places(rank, ranks)
        start = max((each for each in known if each <= number), default=0)
        self._place = known.get(start, START)
        if number > 0 and not known and (epochs := self._epochs_of_others()):  # the run was of other processes
            start, self._place = number, START._replace(epoch=max(epochs) + 1)
            self._note(number, rank, ranks)
        reader = StreamReader(self.stream, self.settings, rank, ranks)
        self._batches = self._generate(reader, self._place)
        for _ in range(number - start):
            _, self._place = next(self._batches)
        self._next = number

    def _generate(self, reader: StreamReader, place: Place) -> Iterator[tuple[list[_Ready], Place]]:
        """Yield batches, each of one shape, and the place of the next one."""
        waiting: dict[int, list[_Ready]] = {}  # by bucket, in the order of reading
        for bucket, ready in filter(None, map(self._ready, reader.fetch(place.waiting))):
            waiting.setdefault(bucket, []).append(ready)
        blocks, taken = reader.blocks(place), place.taken
        # One block is read while the one before is used
        for block in prefetch(self._ahead, lambda _: next(blocks), itertools.count(), 1):
            depth = 2 * self.settings.batch
            results = prefetch(self._readers, self._ready, block.records[taken:], depth)
            for count, result in enumerate(results, start=taken + 1):
                if result is None:
                    continue
                bucket, ready = result
                waiting.setdefault(bucket, []).append(ready)
                if len(waiting[bucket]) == self.settings.batch:
                    full = waiting.pop(bucket)
                    refs = tuple(each.ref for some in waiting.values() for each in some)
                    yield full, block.place._replace(taken=count, waiting=refs)
            taken = 0

    def _ready(self, found: tuple[Ref, StreamRecord]) -> tuple[int, _Ready] | None:
        """Read a photo and draw its pair; None where it cannot be trained with."""
        ref, (item, prompt) = found
        read = read_for_training(item, self._size_px, self._shapes, self.settings)
        if isinstance(read, SkippedPhoto):
            keys = self._photos.skipped[read.reason]
            if len(keys) < MOST_SKIPPED_KEPT and read.key not in keys:
                keys.append(read.key)
            return None
        rgb, bucket = read
        gray, color = draw_pair(rgb, item.key, ref.epoch, self._shapes[bucket], self.settings)
        return bucket, _Ready(ref, prompt, bytes.fromhex(content_of(rgb)[:PHOTO_DIGITS]), gray, color)

    # -----------------------------------------------------------------------------------------------------------------
    # Places on disk

    def _places_path(self, rank: int, ranks: int) -> Path:
        return self._photos.folder / f"places-{rank}-of-{ranks}.jsonl"

    def _note(self, number: int, rank: int, ranks: int) -> None:
        with self._places_path(rank, ranks).open("a", encoding="ascii") as file:
            file.write(json.dumps({"batch": number, "place": self._place}) + "\n")

    def _known_places(self, rank: int, ranks: int) -> dict[int, Place]:
        """Read the places that were written down; a damaged line is left out."""
        return dict(filter(None, map(_parse_place, _lines_of(self._places_path(rank, ranks)))))

    def _epochs_of_others(self) -> list[int]:
        """Return the epochs that processes of this run have written places of."""
        lines = [line for path in self._photos.folder.glob("places-*") for line in _lines_of(path)]
        return [found[1].epoch for found in map(_parse_place, lines) if found is not None]


def _lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def _parse_place(line: str) -> tuple[int, Place] | None:
    try:
        row = json.loads(line)
        epoch, turn, photo, taken, waiting = numbers = row["place"]
        place = Place(epoch, turn, photo, taken, tuple(Ref(*ref) for ref in waiting))
        flat = [row["batch"], *numbers[:-1], *itertools.chain.from_iterable(place.waiting)]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (row["batch"], place) if all(type(each) is int and each >= 0 for each in flat) else None

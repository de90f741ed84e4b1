"""Which photos a process encodes and trains with, where a run has several machines: all of them, or its machine's own.

Machines that share the disk of the caches share all parts. Others have a share of the photos each, which they encode
and train with; noise, timesteps and prompts stay different on all processes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from chromatune.data import PhotoItem


class Share(NamedTuple):
    """A process's part in the encoding.

    Attributes:
        rank: its number among the processes that make the same cache.
        ranks: how many these are.
        machine: number of its machine, of those that have photos of their own.
        machines: how many these are; 1 where all share the photos.
    """

    rank: int
    ranks: int
    machine: int = 0
    machines: int = 1

    def photos(self, items: Sequence[PhotoItem]) -> Sequence[PhotoItem]:
        """Return the photos that the process's machine encodes, of all that are trained with."""
        return items[self.machine :: self.machines]

    @property
    def within(self) -> tuple[int, int] | None:
        """The process among its machine's, where machines have photos of their own."""
        return (self.rank, self.ranks) if self.machines > 1 else None


def find_share(accelerator: Accelerator, folder: Path) -> Share:
    """Return this process's share; all processes call it.

    Args:
        accelerator: of the run.
        folder: of the caches; whether all machines see the same one is tried out.
    """
    processes, local = accelerator.num_processes, int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
    everybody = Share(accelerator.process_index, processes)
    if local >= processes or processes % local or _is_shared(accelerator, folder):
        return everybody
    return Share(accelerator.local_process_index, local, accelerator.process_index // local, processes // local)


def _is_shared(accelerator: Accelerator, folder: Path) -> bool:
    """Return whether all machines see what each of them writes into a folder."""
    words = [secrets.token_hex(8)]
    broadcast_object_list(words)
    mine = folder / f".seen-{words[0]}-{accelerator.process_index}"
    if accelerator.is_local_main_process:
        with contextlib.suppress(OSError):  # the cache says in one line what is wrong with the folder
            folder.mkdir(parents=True, exist_ok=True)
            mine.touch()
    accelerator.wait_for_everyone()
    found = len(list(folder.glob(f".seen-{words[0]}-*")))
    machines = accelerator.num_processes // int(os.environ["LOCAL_WORLD_SIZE"])
    shared = all(gather_object([found == machines]))
    accelerator.wait_for_everyone()
    mine.unlink(missing_ok=True)
    return shared


def gather_photos(
    share: Share, contents: Sequence[str], skipped: dict[str, list[str]]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return what other machines have of their own: hashes of photos, and by reason the keys of those that they skip.

    All processes call it where machines have photos of their own.
    """
    mine = [(share.machine, list(contents), skipped)] if share.rank == 0 else []
    others = [row for row in gather_object(mine) if row[0] != share.machine]
    keys = {reason: [key for _, _, other in others for key in other[reason]] for reason in skipped}
    return [content for _, other, _ in others for content in other], keys

"""A role's photos in two halves that no run changes: to train on, to test on; and the licenses they come with."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chromatune.data import PhotoItem, Source, open_source, split_source
from chromatune.errors import DataError, OptionsError
from chromatune.files import atomic_folder
from chromatune.reports import png_of
from studies.paper.declaration import Budget, Experiment

TEST_SHARE = 0.3  # of a role's photos, by person where persons are known
MANIFEST = "manifest.csv"  # beside the photos, or beside their folder: columns `file` and `license` (or `licence`)
LICENSE = re.compile(r"[^(]*(?:\([^)]*\))?")  # without what follows the source, such as one photo's credit
NOT_STATED = "not stated"
EXAMPLES = ("astronaut", "coffee", "chelsea", "rocket")  # photos that scikit-image ships: any report may show them
EXAMPLE_ROWS, EXAMPLE_COLUMNS = 2, 3  # that an example is cut into
SPLIT_SEED = 0  # one split for all seeds: their rows are compared photo by photo


@dataclass(frozen=True)
class Role:
    """The photos of one role.

    Attributes:
        spec: what the user gave, for `open_source`.
        source: all photos.
        train: at most `Budget.train_photos`, lowest hash of the key first.
        test: the other half, whole.
    """

    spec: str
    source: Source
    train: tuple[PhotoItem, ...]
    test: tuple[PhotoItem, ...]


def open_roles(experiment: Experiment, data: Mapping[str, str], budget: Budget) -> dict[str, Role]:
    """The photos of every role.

    Args:
        experiment: says which roles there are.
        data: role ⇒ source; with "" as the role, the source of an experiment's only one.
        budget: how many photos to train on.

    Raises:
        OptionsError: a role has no source, or a source no role.
        DataError: a source cannot be opened or split.
    """
    given = dict(data)
    if "" in given and len(experiment.roles) == 1:
        given[next(iter(experiment.roles))] = given.pop("")
    wanted = ", ".join(f"--data {role}=SOURCE ({what})" for role, what in experiment.roles.items())
    if unknown := set(given) - set(experiment.roles):
        raise OptionsError(f"{experiment.name} has no role {sorted(unknown)[0]!r}; give {wanted}")
    if missing := set(experiment.roles) - set(given):
        raise OptionsError(f"{experiment.name} needs photos for {sorted(missing)[0]!r}; give {wanted}")
    return {role: _open(given[role], budget.train_photos) for role in experiment.roles}


def _open(spec: str, train_photos: int) -> Role:
    source = open_source(spec)
    split = split_source(source.items, TEST_SHARE, SPLIT_SEED)
    train = sorted(split.train, key=lambda item: hashlib.sha256(item.key.encode()).digest())[:train_photos]
    return Role(spec, source, tuple(train), split.validation)


def training_source(roles: Mapping[str, Role], names: Sequence[str]) -> Source:
    """The training photos of one role, or of several, as a source of their own."""
    if len(names) == 1:
        only = roles[names[0]]
        return dataclasses.replace(only.source, items=tuple(sorted(only.train, key=lambda item: item.key)))
    items: list[PhotoItem] = []
    prompts: dict[str, str] = {}  # of the roles whose photos have their own
    for name in names:
        items += [dataclasses.replace(item, key=f"{name}/{item.key}") for item in roles[name].train]
        prompts |= {f"{name}/{key}": prompt for key, prompt in (roles[name].source.prompts or {}).items()}
    first = roles[names[0]].source
    return dataclasses.replace(first, items=tuple(sorted(items, key=lambda item: item.key)), prompts=prompts or None)


def always_trained(role: Role, validation: float, seeds: Sequence[int]) -> tuple[PhotoItem, ...]:
    """The training photos that no seed's run keeps for its own validation."""
    kept = [{item.key for item in split_source(role.train, validation, seed).train} for seed in seeds]
    return tuple(item for item in role.train if all(item.key in keys for keys in kept))


def licenses_of(items: Iterable[PhotoItem]) -> dict[str, str]:
    """What the manifest beside the photos says of each: key ⇒ license with source and credit, where there is one.

    Raises:
        DataError: a manifest cannot be read.
    """
    manifests: dict[Path, dict[str, str]] = {}
    found: dict[str, str] = {}
    for item in items:
        if item.file is None:
            continue
        for folder in itertools.islice(item.file.parents, len(Path(item.key).parts) + 1):
            if folder not in manifests:
                manifests[folder] = _read_manifest(folder / MANIFEST)
            if license := manifests[folder].get(item.file.relative_to(folder).as_posix()):
                found[item.key] = license
                break
    return found


def describe_licenses(items: Sequence[PhotoItem]) -> str:
    """The licenses of photos and how many photos have each, most frequent first."""
    known = licenses_of(items)
    short = [_short(known[item.key]) if item.key in known else NOT_STATED for item in items]
    return ", ".join(f"{license} ({count})" for license, count in Counter(short).most_common())


def _short(license: str) -> str:
    match = LICENSE.match(license)
    return match[0].strip() if match else license


def _read_manifest(path: Path) -> dict[str, str]:
    """File ⇒ license; nothing where there is no manifest."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); repair it, or move it away") from None
    licenses = {row.get("file") or "": row.get("license") or row.get("licence") or "" for row in rows}
    return {file: license for file, license in licenses.items() if file and license}


def write_examples(folder: Path) -> Path:
    """Pieces of the photos that scikit-image ships, written once: enough to see that an experiment runs.

    Returns:
        The folder.
    """
    import skimage.data

    if not folder.exists():
        with atomic_folder(folder) as new:
            for name in EXAMPLES:
                bands = np.array_split(getattr(skimage.data, name)(), EXAMPLE_ROWS, axis=0)
                pieces = [piece for band in bands for piece in np.array_split(band, EXAMPLE_COLUMNS, axis=1)]
                for number, piece in enumerate(pieces):
                    (new / f"{name}-{number}.png").write_bytes(png_of(piece))
    return folder

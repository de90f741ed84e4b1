"""A role's photos in two halves that no run changes: to train on, to test on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chromatune.data import PhotoItem, Source, open_source, split_source
from chromatune.errors import OptionsError
from studies.paper.declaration import Budget, Experiment

TEST_SHARE = 0.3  # of a role's photos, by person where persons are known
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

"""What commands share once they run: a model that is loaded when it is first needed, and inputs read in batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vlm import assets
from vlm.cli.output import say, working
from vlm.cli.told import Told
from vlm.config import parse_pairs
from vlm.errors import BadInput, Incapable, VlmError
from vlm.files import name_text, path_meant

if TYPE_CHECKING:
    from vlm.api import Model
    from vlm.media.open import Media
    from vlm.media.video.sampling.base import Sampler

T = TypeVar("T")

BATCH = 8
"""Inputs read and worked on at once: bounds the memory, and the time between two signs of progress."""


def lazy_model(
    name: str,
    offline: bool,
    tiling: str | None = None,
    merge: str | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    only: Iterable[str] = (),
    multi_token: bool = False,
) -> Callable[[], Model]:
    """A function that loads the model on its first call; of `only` "texts" or "images" no more than their vectors need,
    with `multi_token` the heads that guess for it, where it has some.

    Raises `BadInput` at once where there is no such model, device, tiling or merging: before anything slow begins.
    """
    check_model(name)
    options: dict[str, Any] = {"only": tuple(only)} | ({"multi_token": True} if multi_token else {})
    if device != "auto" or dtype != "auto":
        from vlm.devices import device_of, dtype_of

        options |= {"device": device_of(device), "dtype": dtype_of(dtype)}
    if tiling is not None:
        from vlm.vision.content_tiling import TilingConfig

        options["tiling"] = parse_pairs(TilingConfig, tiling, f"tiling {tiling!r}")
    if merge is not None:
        from vlm.vision.merging import MergeConfig

        options["merge"] = parse_pairs(MergeConfig, merge, f"merge {merge!r}")

    @cache
    def load() -> Model:
        with working(f"loading {name}") as advance:
            from vlm import api

            return api.load(name, **options, offline=offline, report=lambda line: advance(0, line))

    return load


def check_model(name: str) -> None:
    """Raise `BadInput` unless this is a card, a folder, or may be a repository of the hub."""
    from vlm.weights import hub

    if not Path(name).expanduser().is_dir() and not hub.is_repository(name):
        assets.find_card("configs/models", name, "model")


def space_of(name: str) -> tuple[str, int]:
    """The name of a model's shared space, and its width: `vlm.models.identity.space_of`."""
    from vlm.models import identity

    return identity.space_of(name)


def expand(inputs: Iterable[str], told: Told) -> list[str]:
    """The inputs with every folder replaced by the pictures and videos in it. Folders that hold none are skipped, and
    what else is in a folder is told."""
    from vlm.media.folders import some_media
    from vlm.media.urls import is_url

    found: list[str] = []
    for item in inputs:
        try:
            path = item if is_url(item) else path_meant(item)
            if not is_url(item) and os.path.isdir(path):
                folder = some_media(path)
                told.notes.add_all(folder.notes)
                found += [str(one) for one in folder.paths]
            else:
                found.append(path)
        except BadInput as error:
            told.skip(item, error)
    return found


def sampling_of(model: str, frames: int | None = None, named: str | None = None) -> Callable[[], Sampler]:
    """What says which frames of a clip are looked at: what was asked for, and else the model's card.

    Raises `BadInput` at once for a way of sampling that is none; a card is read when the first clip is.
    """
    from vlm.media.video.sampling import Uniform, parse_sampling

    asked = parse_sampling(named, frames) if named is not None else None

    @cache
    def found() -> Sampler:
        from vlm.models.identity import card_of

        card = card_of(model)
        if card is None:  # a published model says nothing of clips
            return asked or Uniform().with_frames(frames or Uniform().frames)
        sampling = asked or card.video.sampling
        if card.model.tower.budget is None:
            sampling = sampling.fitted(card.model.visual_tokens)
        return sampling if frames is None else sampling.with_frames(frames)

    return found


def open_input(item: str, told: Told, offline: bool = False, sampling: Callable[[], Sampler] | None = None) -> Media:
    """One input, read; what was done to it to fit is told. Raises `BadInput`."""
    from vlm.media.kinds import is_video
    from vlm.media.open import open_media
    from vlm.media.urls import is_url
    from vlm.weights.parts import network_is_off

    if is_url(item):
        if offline or network_is_off():
            raise BadInput(f"{item}: expected a file, got a URL while the network is off")
        return told.opened(open_media(item))
    path = path_meant(item)
    return told.opened(open_media(path, sampling() if sampling is not None and is_video(path) else None))


def budget_teller(load: Callable[[], Model], questions: Sequence[str] | None = None) -> Callable[[Media], None]:
    """Says on stderr what an input costs in tokens before the model runs; inputs alike to the last are not repeated.

    What it gives raises `BadInput` for an input that is more than the model reads.
    """
    last = ""

    def tell(media: Media) -> None:
        nonlocal last
        (budget,) = load().budget([media], questions)
        budget.check()
        if str(budget) != last:
            say(f"{name_text(budget.source)}: {budget}")
        last = str(budget)

    return tell


def map_media(
    inputs: Sequence[str],
    work: Callable[[list[Media]], Iterable[T]],
    told: Told,
    *,
    label: str,
    offline: bool = False,
    sampling: Callable[[], Sampler] | None = None,
    check: Callable[[Media], None] = lambda media: None,
) -> list[tuple[str, T]]:
    """`work` on the inputs that can be read and pass `check`, a batch at a time, each under its name as a text; the
    others are skipped with the reason. What the model cannot do at all ends it."""
    results: list[tuple[str, T]] = []
    with working(label, len(inputs)) as advance:
        for start in range(0, len(inputs), BATCH):
            names, media = [], []
            for item in inputs[start : start + BATCH]:
                try:
                    opened = open_input(item, told, offline, sampling)
                    check(opened)
                    media.append(opened)
                    names.append(name_text(item))
                except Incapable:
                    raise
                except VlmError as error:
                    told.skip(item, error)
            if media:
                results += zip(names, work(media), strict=True)
            advance(min(start + BATCH, len(inputs)), "")
    return results

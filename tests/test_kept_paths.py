"""Paths that an earlier `docs/architecture.md` or `docs/extending.md` named still lead to what has moved."""

from __future__ import annotations

from importlib import import_module

import pytest

KEPT = {
    "vlm.hub": ("vlm.weights.hub", ["is_repository", "snapshot"]),
    "vlm.weights": ("vlm.weights.fetching", ["fetch"]),
    "vlm.media.images": ("vlm.media.kinds", ["is_image", "is_video"]),
    "vlm.vision.images": ("vlm.media.images", ["load_image", "list_media", "is_image", "is_video"]),
    "vlm.vision.urls": ("vlm.media.urls", ["fetch_url", "is_url"]),
    "vlm.vision.tokens": ("vlm.conversation.budget", ["PictureTokens", "TokenBudget"]),
    "vlm.video.reader": ("vlm.media.video.reader", ["open_video"]),
    "vlm.video.sampling": ("vlm.media.video.sampling", ["Uniform", "Rate", "parse_sampling", "load_clip", "Clip"]),
    "vlm.checkpoints.dual_encoders": ("vlm.models.dual_encoders", ["load_pair", "identity"]),
    "vlm.heads.vectors": ("vlm.vectors", ["near_groups", "shortened", "composed"]),
    "vlm.evaluation.kinds.base": ("vlm.evaluation.task_types.base", ["Job", "Outcome"]),
}
RENAMED = {
    "vlm.vision.detail:chosen": "vlm.vision.content_tiling:choose_views",
    "vlm.datasets.readers.inside:Inside": "vlm.datasets.readers.lazy_media:LazyMedia",
    "vlm.evaluation.card:KINDS": "vlm.evaluation.card:TASK_TYPES",
    "vlm.evaluation.subject:Ask": "vlm.evaluation.model_under_test:Request",
}


@pytest.mark.parametrize("path", KEPT)
def test_an_old_path_leads_to_what_has_moved(path: str) -> None:
    now, names = KEPT[path]
    for name in names:
        assert getattr(import_module(path), name) is getattr(import_module(now), name)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_is_what_has_a_new_one(old: str) -> None:
    (path, name), (now, renamed) = old.split(":"), RENAMED[old].split(":")
    assert getattr(import_module(path), name) is getattr(import_module(now), renamed)

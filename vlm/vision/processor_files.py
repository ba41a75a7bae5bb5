"""Where a published folder says how its pictures become pixels: in one of two files, or in three."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm.errors import BadInput
from vlm.files import read_json

ONE, PICTURES, CLIPS = "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"


def has_processor(folder: Path) -> bool:
    """Whether there is a file that says it."""
    return any((folder / name).is_file() for name in (ONE, PICTURES))


def read_processor(folder: Path) -> tuple[dict[str, Any], Path]:
    """The processor's keys, `image_processor` and `video_processor` among them, and the file to name in errors.

    One file has everything (transformers 5), which counts before others; or there is one for pictures, maybe one for
    clips and one for the rest. Clips are as pictures where nothing is said of them. Raises `BadInput` where there is
    none, or one that is malformed.
    """
    where, old, clips = folder / ONE, folder / PICTURES, folder / CLIPS
    if not has_processor(folder):
        raise BadInput(f"{old}: no such file, and no {ONE}: expected one that says how pictures are read")
    whole = read_json(where) if where.is_file() else {}
    if whole.get("image_processor"):
        return {"video_processor": dict(whole["image_processor"]), **whole}, where
    images = read_json(old) if old.is_file() else whole
    videos = read_json(clips) if clips.is_file() else images
    return {**whole, "image_processor": images, "video_processor": videos}, old if old.is_file() else where

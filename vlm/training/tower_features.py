"""What a frozen tower makes of pictures, computed once and kept (`vlm.training.features`)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vlm.media.images import load_image
from vlm.models.vision_language import VisionLanguageModel, cast_parameters
from vlm.training.features import Features, Load, cached_features
from vlm.training.task import Log
from vlm.weights.parts import cache_dir


def visual_features(
    model: VisionLanguageModel, pictures: Sequence[Path], mirror: bool, log: Log, load: Load = load_image
) -> Features:
    """Features of `pictures` (and their mirror images), cached; the tower runs in bfloat16."""
    assert model.tower is not None
    tower = deepcopy(model.tower).eval()
    cast_parameters(tower, torch.bfloat16)
    device = next(tower.parameters()).device

    @torch.inference_mode()
    def encode(images: list[Image.Image]) -> tuple[Tensor, Tensor]:
        output = tower(tower.preprocess(images).to(device, torch.bfloat16))
        return output.tokens_BND.cpu(), output.pooled_BD.cpu()

    def report(done: int, total: int) -> None:
        if done % 1024 < 256 or done == total:
            log(f"visual features: {done} of {total}")

    key = f"{model.tower.cfg.model_dump_json()}/bfloat16"
    unique = sorted(set(pictures))
    views = [
        cached_features(unique, encode, folder=cache_dir() / "features", key=key, load=load, flipped=f, report=report)
        for f in ([False, True] if mirror else [False])
    ]
    for view in views[1:]:
        views[0].merge(view)
    return views[0]

"""The facade: a model and its three heads under one name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from vlm.errors import BadInput
from vlm.facade import Model
from vlm.families.folder import load_folder
from vlm.families.published import TilesByContent
from vlm.models.assemble import assemble
from vlm.models.card import load_card
from vlm.models.dual_encoders import is_dual_encoder, load_pair
from vlm.published import DualEncoder, PublishedModel
from vlm.vision.detail import TilingConfig
from vlm.vision.merging import MergeConfig
from vlm.weights import hub


def load(
    name_or_path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    tiling: TilingConfig | None = None,
    merge: MergeConfig | None = None,
    offline: bool = False,
    report: Callable[[str], None] | None = None,
) -> Model:
    """A model by the name of a card in `configs/models/` or the path of a card; or, as its authors publish it, by its
    folder or the name of its repository on the hub (`owner/name`), which gives a `PublishedModel`, or a `DualEncoder`
    where the folder is open_clip's, or CLIP or SigLIP of transformers.

    What is missing is fetched once and kept; `offline=True` never touches the network. `report` is told of progress in
    words. `device` and `dtype` (the CPU and float32) are for published models; a card's stays where it was trained.
    `tiling` says how a published model's pictures become tiles, `merge` how many of a card's visual tokens are left.
    Raises `BadInput` for an unknown name (with the nearest one) and a folder that cannot be used, `VlmError` where no
    source answers.
    """
    name = str(name_or_path)
    folder = Path(name).expanduser()
    in_hub = not folder.is_dir() and hub.is_repository(name)
    if in_hub:
        folder = hub.snapshot(name, offline=offline, report=report)
    if folder.is_dir():
        if is_dual_encoder(folder):
            if device is not None or dtype is not None:
                raise BadInput(f"{name}: a dual encoder runs in float32 on the CPU; expected no device and no dtype")
            return DualEncoder(load_pair(folder), name if in_hub else folder.resolve().name)
        published = load_folder(folder, dtype or torch.float32)
        published.model.to(device or "cpu")
        if tiling is not None:
            if not isinstance(published.processor, TilesByContent):
                raise BadInput(f"model {name}: its pictures are not tiled by content, so it takes no tiling")
            published.processor.tiling = tiling
        if merge is not None:
            raise BadInput(f"model {name}: a published model's tokens are not merged; expected a card's name")
        return PublishedModel(published, name if in_hub else folder.resolve().name)
    card = load_card(name)
    if device is not None or dtype is not None:
        raise BadInput(f"model {card.name}: a card's model runs in float32 on the CPU; expected no device and no dtype")
    if tiling is not None:
        raise BadInput(f"model {card.name}: its pictures are not seen in tiles, so it takes no tiling")
    if merge is not None:
        card = card.merging(merge)
    return Model(assemble(card, offline=offline, report=report))

"""`vlm.load`: a model by a card's name, a folder, or a repository of the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vlm.errors import BadInput
from vlm.facade import Model
from vlm.files import read_json

if TYPE_CHECKING:
    import torch

    from vlm.models.assemble import Space
    from vlm.models.assembled import Assembled
    from vlm.models.card import ModelCard
    from vlm.vision.content_tiling import TilingConfig
    from vlm.vision.merging import MergeConfig

__all__ = ["Model", "load"]

Report = Callable[[str], None]


def load(
    name_or_path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tiling: TilingConfig | None = None,
    merge: MergeConfig | None = None,
    only: Iterable[str] | None = None,
    multi_token: bool = False,
    offline: bool = False,
    report: Report | None = None,
) -> Model:
    """A model by the name of a card in `configs/models/` or the path of a card; or, as its authors publish it or
    `Model.save` wrote it, by its folder or the name of its repository on the hub (`owner/name`); or by the folder of an
    adapter, which names the model it is for.

    What is missing is fetched once and kept; `offline=True` never touches the network. `report` is told of progress in
    words. `device` is `auto` (CUDA, then MPS, then CPU) by default, `dtype` float32. `tiling` says how a published
    model's pictures become tiles, `merge` how many of a card's visual tokens are left. `only` - "texts", "images" or
    both - is for vectors alone: the rest of the model is then not loaded where they do without it. `multi_token` loads
    the multi-token heads of a language model alone, where its folder has some: its replies are guessed by them.
    Raises `BadInput` for an unknown name (with the nearest one) and a folder that cannot be used, `VlmError` where no
    source answers.
    """
    from vlm.devices import device_of, dtype_of
    from vlm.weights import hub

    place, kind, sides = device_of(device), dtype_of(dtype), frozenset(only or ())
    if strange := sides - {"texts", "images"}:
        raise BadInput(f"only: expected texts, images or both, got {', '.join(sorted(strange))}")
    name = str(name_or_path)
    folder = Path(name).expanduser()
    in_hub = not folder.is_dir() and hub.is_repository(name)
    if in_hub:
        folder = hub.snapshot(name, offline=offline, report=report)
    if folder.is_dir() and (base := _base(folder)) is not None:
        return _with_adapter(folder, base, dtype, tiling, merge, offline, report).to(place, kind)
    if folder.is_dir():
        known_as = name if in_hub else folder.resolve().name
        model = _from_folder(folder, known_as, kind, tiling, merge, sides, multi_token)
    else:
        if tiling is not None:
            raise BadInput(f"model {name}: its pictures are not tiled by content, so it takes no tiling")
        model = _from_card(name, merge, sides, offline, report)
    return model.to(place, kind)


def _base(folder: Path) -> str | None:
    from vlm.models.identity import adapted

    return adapted(folder)


def _with_adapter(
    folder: Path, base: str, dtype: str | torch.dtype | None, tiling: TilingConfig | None, merge: MergeConfig | None,
    offline: bool, report: Report | None,
) -> Model:  # fmt: skip
    """The model an adapter is for, with its products added."""
    from vlm.models.adapters import apply_adapter

    model = load(base, device="cpu", dtype=dtype, tiling=tiling, merge=merge, offline=offline, report=report)
    if model.parts is None:
        raise BadInput(f"{folder}: an adapter of model {model.name}, which is {model.about}; expected one that writes")
    apply_adapter(model.parts, folder)
    model.name = folder.resolve().name
    return model


def _from_folder(
    folder: Path,
    name: str,
    dtype: torch.dtype,
    tiling: TilingConfig | None,
    merge: MergeConfig | None,
    only: frozenset[str],
    multi_token: bool,
) -> Model:
    from vlm.families.published import TilesByContent
    from vlm.models.assemble import has_own_text_side
    from vlm.models.dual_encoders import is_dual_encoder, load_pair

    if merge is not None:
        raise BadInput(f"model {name}: a published model's tokens are not merged; expected a card's name")
    if is_dual_encoder(folder):
        from vlm.heads.retrieval import PairEmbedder

        if tiling is not None:
            raise BadInput(f"model {name}: a dual encoder's pictures are not tiled, so it takes no tiling")
        pair = load_pair(folder)
        return Model(name, "a dual encoder", embedder=PairEmbedder(pair), modules=[pair])
    if not (folder / "config.json").is_file():
        raise BadInput(f"{folder}: expected a model's folder with a config.json, found none")
    from vlm.families.folder import load_folder
    from vlm.models.identity import saved_card

    card = saved_card(folder)
    if only and card is not None and has_own_text_side(card):
        from vlm.families.saved_card import load_space

        return _space(load_space(folder, only), card, only)
    parts = load_folder(folder, dtype, multi_token)
    settings = {}
    if tiling is not None:
        if not isinstance(parts.processor, TilesByContent):
            raise BadInput(f"model {name}: its pictures are not tiled by content, so it takes no tiling")
        parts.processor.tiling = tiling
    if isinstance(parts.processor, TilesByContent) and parts.processor.tiling.by == "content":
        settings = {"tiling": parts.processor.tiling.model_dump_json()}
    if parts.card is not None:
        return _model(parts, parts.name, "a card's model", settings)
    family = str(read_json(folder / "config.json").get("model_type"))
    return _model(parts, name, f"a {family} model", settings)


def _from_card(
    name: str, merge: MergeConfig | None, only: frozenset[str], offline: bool, report: Report | None
) -> Model:
    from vlm.models.assemble import assemble, assemble_space, has_own_text_side
    from vlm.models.card import load_card

    card = load_card(name)
    if merge is not None:
        card = card.merging(merge)
    if only and has_own_text_side(card):
        return _space(assemble_space(card, only, offline=offline, report=report), card, only)
    settings = {} if card.model.merge.idle else {"merge": card.model.merge.model_dump_json()}
    return _model(assemble(card, offline=offline, report=report), card.name, "a card's model", settings)


def _space(space: Space, card: ModelCard, only: frozenset[str]) -> Model:
    from vlm.heads.retrieval import Embedder

    embedder = Embedder(space.alignment, space.tower, space.text_encoder)
    about = f"loaded for vectors of {' and '.join(sorted(only))} alone"
    return Model(card.name, about, embedder=embedder, card=card, modules=[space], video=card.video)


def _model(parts: Assembled, name: str, about: str, settings: dict[str, str]) -> Model:
    from vlm.heads.retrieval import Embedder
    from vlm.heads.writer import Writer

    return Model(
        name,
        about,
        writer=Writer(parts),
        embedder=Embedder.of(parts),
        parts=parts,
        modules=[parts.model, parts.text_encoder],
        video=parts.video,
        settings=settings,
    )

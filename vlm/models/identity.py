"""Which shared space a model's vectors lie in, told without building the model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vlm import config
from vlm.alignment.dual_encoder import AlignmentConfig
from vlm.config import Config
from vlm.errors import BadInput
from vlm.files import read_json
from vlm.media.video.config import VideoConfig
from vlm.models.card import ModelCard, load_card
from vlm.models.config import ModelConfig
from vlm.models.space import FOLDER
from vlm.weights import hub
from vlm.weights.fetching import remembered_sha256

ADAPTER = "adapter_config.json"
"""In a folder of peft's; it names the model that the adapter is for."""


def adapted(folder: Path) -> str | None:
    """The model an adapter's folder is for: a card, a folder or a repository; `None` of other folders.

    Raises `BadInput` where an adapter does not say.
    """
    where = folder / ADAPTER
    if not where.is_file():
        return None
    base = read_json(where).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise BadInput(f"{where}: key base_model_name_or_path: expected a model, got {base!r:.60}")
    beside = folder / base  # a relative path may be meant from there
    return str(beside) if beside.is_dir() else base


class SavedFields(Config):
    """`config.json` of a folder that `Model.save` wrote of a card's model."""

    model_type: str
    dtype: str
    name: str
    about: str
    licence: str
    model: ModelConfig
    video: VideoConfig = VideoConfig()

    def card(self) -> ModelCard:
        return ModelCard(
            name=self.name, about=self.about, licence=self.licence, model=self.model, parts={}, video=self.video
        )


def saved_fields(folder: Path) -> SavedFields:
    """Raises `BadInput` naming the file and the key."""
    where = folder / "config.json"
    return config.parse(SavedFields, read_json(where), str(where))


def card_of(name: str) -> ModelCard | None:
    """The card of a model by its name or path, or of a folder that was saved of one; `None` of a published model.

    Raises `BadInput` for an unknown name.
    """
    folder = Path(name).expanduser()
    if (base := adapted(folder)) is not None:
        return card_of(base)
    if folder.is_dir():
        return saved_card(folder)
    return None if hub.is_repository(name) else load_card(name)


def saved_card(folder: Path) -> ModelCard | None:
    """The card whose model was saved as this folder; `None` of a published one."""
    there = (folder / "config.json").is_file()
    return saved_fields(folder).card() if there and _kind(folder) == "vlm" else None


def space_of(name: str) -> tuple[str, int]:
    """What tells the shared space of a model from others (its name and a hash of its weights), and its width.

    `name` is a card's, or a folder or hub repository. Raises `BadInput` for a model without a space.
    """
    folder = Path(name).expanduser()
    if (base := adapted(folder)) is not None:
        space, width = space_of(base)
        digests = [remembered_sha256(path.resolve()) for path in sorted(folder.glob("*.safetensors"))]
        return f"{space}-{hashlib.sha256(repr(digests).encode()).hexdigest()[:12]}", width
    if folder.is_dir() or hub.is_repository(name):
        return _of_folder(folder if folder.is_dir() else hub.snapshot(name))
    card = load_card(name)
    if card.model.alignment is None:
        raise BadInput(f"model {card.name}: it has no space that pictures and texts share; expected one like nano's")
    digest = hashlib.sha256(card.model.model_dump_json().encode())
    for part in card.parts.values():
        digest.update(repr(sorted(part.sources[0].hashes.items())).encode())
    if trained := card.trained_weights():
        digest.update(trained.read_bytes())
    return f"{card.name}-{digest.hexdigest()[:12]}", card.model.alignment.width


def _of_folder(folder: Path) -> tuple[str, int]:
    kind = _kind(folder) if (folder / "config.json").is_file() else None
    own = folder / FOLDER / "config.json"
    if kind == "vlm":
        alignment = saved_fields(folder).model.alignment
    elif own.is_file():
        alignment = config.parse(AlignmentConfig, read_json(own), str(own))
    else:
        from vlm.models.dual_encoders import identity

        return identity(folder)
    if alignment is None:
        raise BadInput(f"{folder}: has no space that pictures and texts share")
    digest = hashlib.sha256(alignment.model_dump_json().encode())
    for path in [*sorted(folder.glob("model*.safetensors")), *sorted((folder / FOLDER).glob("*.safetensors"))]:
        digest.update(remembered_sha256(path.resolve()).encode())
    return f"{folder.resolve().name}-{digest.hexdigest()[:12]}", alignment.width


def _kind(folder: Path) -> object:
    return read_json(folder / "config.json").get("model_type")

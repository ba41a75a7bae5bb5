"""Model cards: an architecture, the published parts it starts from, and the weights this project trained."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from vlm import assets, config
from vlm.config import Config
from vlm.errors import BadInput
from vlm.media.video.config import VideoConfig
from vlm.models.config import ModelConfig
from vlm.vision.merging import MergeConfig
from vlm.weights.parts import Part


class ModelCard(Config):
    name: str
    about: str
    licence: str
    model: ModelConfig
    parts: dict[str, Part]
    """`tower`, `language`, `text` where the text head reads a sentence encoder, and `projector` where it is a published
    one."""
    trained: str | None = None
    """Folder below `data/checkpoints/`, or any path, with `model.safetensors`."""

    video: VideoConfig = VideoConfig()

    @model_validator(mode="after")
    def _pays(self) -> ModelCard:
        stated = getattr(self.video.sampling, "tokens_per_frame", None)
        if self.model.tower.budget is None and stated not in (None, self.model.visual_tokens):
            raise ValueError(f"video.sampling.tokens_per_frame {stated}: the model has {self.model.visual_tokens}")
        if self.video.times and self.model.merge.temporal < 1:
            raise ValueError("video.times: frames merged in time have no times of their own (model.merge.temporal)")
        return self

    def merging(self, merge: MergeConfig) -> ModelCard:
        """The card with this merging. Raises `BadInput` where the rest of it forbids it."""
        data = self.model_dump()
        return config.parse(ModelCard, {**data, "model": {**data["model"], "merge": merge}}, f"model {self.name}")

    def trained_weights(self) -> Path | None:
        """The file of trained weights. Raises `BadInput` where the card names one that is not there."""
        if self.trained is None:
            return None
        for folder in (assets.root() / "data" / "checkpoints" / self.trained, Path(self.trained).expanduser()):
            if (folder / "model.safetensors").is_file():
                return folder / "model.safetensors"
        raise BadInput(f"model {self.name}: no trained weights at data/checkpoints/{self.trained}/model.safetensors")


def load_card(name_or_path: str) -> ModelCard:
    return config.load(ModelCard, assets.find_card("configs/models", name_or_path, "model"))

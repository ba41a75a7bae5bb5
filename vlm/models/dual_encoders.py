"""Contrastive checkpoints as their authors publish them: folders of open_clip, and of transformers' CLIP and SigLIP.

B images or texts, S width of the space both sides share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer

from vlm.conversation.tokenizer import TextTokens, transformers_text_tokens
from vlm.errors import BadInput
from vlm.files import read_json
from vlm.vision import towers
from vlm.vision.towers import open_clip, transformers
from vlm.vision.towers.weights import read_weights
from vlm.weights.fetching import remembered_sha256

FAMILIES = ("clip", "siglip", "siglip2")
"""`model_type` of transformers' dual encoders."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")


class TransformersPair(nn.Module):
    """CLIP, SigLIP or SigLIP 2 of transformers: our tower on the picture's side, the library's model on the text's.

    CLIP's texts are padded to the longest, SigLIP's to what it was trained on; both are cut there.
    """

    def __init__(self, folder: Path):
        super().__init__()
        if not any((folder / name).is_file() for name in VOCABULARIES):  # the library would make up an empty one
            raise BadInput(f"{folder}: expected a tokenizer ({', '.join(VOCABULARIES)}), got none")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            raise BadInput(f"{folder}: not a tokenizer: {' '.join(str(error).split())[:200]}") from None
        state = read_weights(folder)
        self.tower = towers.load(folder, library="transformers")
        state = {key: value for key, value in state.items() if not key.endswith(".position_ids")}
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.both: Any = transformers.loaded(AutoModel.from_config(config), state, folder.name).eval()
        self.both.vision_model = nn.Identity()  # the tower is it
        self.projection: Any = getattr(self.both, "visual_projection", nn.Identity())
        limit = self.both.config.text_config.max_position_embeddings
        padding = True if self.both.config.model_type == "clip" else "max_length"
        self.reading = {"padding": padding, "truncation": True, "max_length": limit, "return_tensors": "pt"}

    @property
    def scale(self) -> float:
        """What similarities are multiplied by: the learned inverse temperature."""
        return self.both.logit_scale.exp().item()

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors `[B, S]`."""
        like = next(self.tower.parameters())
        pooled_BD = self.tower(self.tower.preprocess(images).to(like.device, like.dtype)).pooled_BD
        return F.normalize(self.projection(pooled_BD), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors `[B, S]`."""
        read = self.tokenizer(list(texts), **self.reading).to(next(self.tower.parameters()).device)
        found = self.both.get_text_features(**read)
        return F.normalize(getattr(found, "pooler_output", found), dim=-1)

    def text_tokens(self, texts: Sequence[str]) -> list[TextTokens]:
        """How much of each text is read, without padding."""
        return transformers_text_tokens(self.tokenizer, texts, self.reading["max_length"])


Pair: TypeAlias = open_clip.Pair | TransformersPair
"""Two sides of one space, with the checkpoint's own preprocessing and tokenizer."""


def is_dual_encoder(folder: Path) -> bool:
    """Whether a folder's own files say that it holds two sides of one space."""
    return _library(folder) is not None


def load_pair(folder: Path) -> Pair:
    """Both sides, in float32 and evaluation mode. Raises `BadInput` for a folder that is none, or not whole."""
    library = _library(folder)
    if library is None:
        where = "no such folder" if not folder.is_dir() else "another folder"
        raise BadInput(
            f"{folder}: expected a dual encoder of open_clip, or CLIP or SigLIP of transformers, got {where}"
        )
    if library == "open_clip":
        return open_clip.load_pair(folder)
    return TransformersPair(folder).eval()


def identity(folder: Path) -> tuple[str, int]:
    """What tells a folder's space from others (its name and a hash of its weights), and its width; no model is built.

    Raises `BadInput` for a folder that is no dual encoder.
    """
    library = _library(folder)
    if library is None:
        raise BadInput(f"{folder}: has no space that pictures and texts share")
    digest = hashlib.sha256()
    stem = open_clip.WEIGHTS if library == "open_clip" else "model"
    for path in sorted(folder.glob(f"{stem}*.safetensors")):
        digest.update(remembered_sha256(path.resolve()).encode())
    if library == "open_clip":
        width = read_json(folder / open_clip.CONFIG).get("model_cfg", {}).get("embed_dim")
    else:
        content = read_json(folder / "config.json")
        clip = content["model_type"] == "clip"
        # What a config leaves out is what its class says: 512 of CLIP, 768 of SigLIP.
        width = content.get("projection_dim", 512) if clip else content.get("vision_config", {}).get("hidden_size", 768)
    if not isinstance(width, int):
        raise BadInput(f"{folder}: expected the width of the shared space in its config, got {width!r}")
    return f"{folder.resolve().name}-{digest.hexdigest()[:12]}", width


def _library(folder: Path) -> str | None:
    """Where a repository has the files of both libraries, the one whose weights are there."""
    if (folder / open_clip.CONFIG).is_file() and list(folder.glob(f"{open_clip.WEIGHTS}*.safetensors")):
        return "open_clip"
    if (folder / "config.json").is_file() and read_json(folder / "config.json").get("model_type") in FAMILIES:
        return "transformers"
    return "open_clip" if (folder / open_clip.CONFIG).is_file() else None

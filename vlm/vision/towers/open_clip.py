"""Towers of open_clip: its own ViTs and those it takes from timm, and the text side of a checkpoint.

B images or texts, N patches, D width, S width of the space both sides share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from open_clip.model import resize_pos_embed
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vlm import config
from vlm.conversation.tokenizer import TextTokens, transformers_text_tokens
from vlm.errors import BadInput, unknown
from vlm.files import read_json
from vlm.vision.tower import TowerConfig, TowerInput, TowerOutput, VisionTower, activation_name, unfit
from vlm.vision.towers import timm
from vlm.vision.towers.weights import read_weights
from vlm.weights.exact import load_exactly

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model"
TEXT_SIDE = (
    "text.", "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "attn_mask",
    "logit_scale", "logit_bias",
)  # fmt: skip
NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
"""open_clip builds both sides or none."""


class Tower(VisionTower):
    """`pooled_BD` is what is pooled before the projection; `project` leads on into the shared space.

    A tower with an attention pool (CoCa) gives the last block's tokens, not the pool's.
    """

    def __init__(self, cfg: TowerConfig):
        super().__init__(cfg)
        known = cfg.options or open_clip.get_model_config(cfg.name)
        if known is None:
            raise unknown("model of open_clip", cfg.name, open_clip.list_models())
        self.visual = _visual(known, cfg.image_size)
        self.proj: nn.Parameter | None = None
        if not isinstance(self.visual, TimmModel):  # the projection apart, so that the model gives what it projects
            self.proj, self.visual.proj = self.visual.proj, None
            self.visual.output_tokens = self.visual.attn_pool is None

    def found(self) -> tuple[int, int]:
        return _width_and_patch(self.visual)

    def activations(self) -> Iterator[Callable[[Tensor], Tensor]]:
        return _activations(self.visual)

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """open_clip's names of a whole checkpoint, whose text side is left out; position tables are resampled."""
        state = {key: value for key, value in state.items() if not key.startswith(TEXT_SIDE)}
        if isinstance(self.visual, VisionTransformer):
            resize_pos_embed(state, SimpleNamespace(visual=self.visual))
        names = {"visual.proj": "proj"}
        load_exactly(self, {names.get(key, key): value for key, value in state.items()}, unfit(self.cfg.name))

    def forward(self, pixels: TowerInput) -> TowerOutput:
        if isinstance(self.visual, TimmModel):
            return timm.run(self.visual.trunk, pixels, self.cfg.layer)
        if self.cfg.layer == -1 and self.visual.output_tokens:
            pooled_BD, tokens_BND = self.visual(pixels)
            return TowerOutput(tokens_BND, pooled_BD)
        out = self.visual.forward_intermediates(pixels, [self.cfg.layer], output_fmt="NLC")
        return TowerOutput(out["image_intermediates"][0], out["image_features"])

    def project(self, pooled_BD: Tensor) -> Tensor:
        """`[B, S]`: what open_clip's `encode_image` gives, not normalised."""
        if isinstance(self.visual, TimmModel):
            return self.visual.head(self.visual.trunk.get_classifier()(pooled_BD))
        return pooled_BD if self.proj is None else pooled_BD @ self.proj


class Pair(nn.Module):
    """Both sides of a contrastive checkpoint of open_clip."""

    def __init__(self, tower: Tower, text: Any, tokenizer: Any):
        super().__init__()
        self.tower, self.text, self.tokenizer = tower, text, tokenizer

    @property
    def scale(self) -> float:
        """What similarities are multiplied by: the learned inverse temperature."""
        return self.text.logit_scale.exp().item()

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors `[B, S]`."""
        like = next(self.tower.parameters())
        pixels = self.tower.preprocess(images).to(like.device, like.dtype)
        return F.normalize(self.tower.project(self.tower(pixels).pooled_BD), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors `[B, S]`."""
        ids_BT = self.tokenizer(list(texts)).to(next(self.tower.parameters()).device)
        return self.text.encode_text(ids_BT, normalize=True)

    def text_tokens(self, texts: Sequence[str]) -> list[TextTokens]:
        """How much of each text is read, without the padding at its end."""
        limit, library = self.tokenizer.context_length, getattr(self.tokenizer, "tokenizer", None)
        if library is not None:
            return transformers_text_tokens(library, [self.tokenizer.clean_fn(text) for text in texts], limit)
        ids = [self.tokenizer.encode(text) for text in texts]
        return [TextTokens(min(len(row) + 2, limit), len(row) + 2) for row in ids]


def load_pair(folder: Path) -> Pair:
    """The two sides of a checkpoint in open_clip's layout, in evaluation mode. Raises `BadInput` as a tower does."""
    cfg = read(folder)
    state = read_weights(folder, WEIGHTS)
    known = deepcopy(cfg.options)
    custom = known.pop("custom_text", False) or "hf_model_name" in known["text_cfg"]
    if "multimodal_cfg" in known:
        raise BadInput(f"{folder / CONFIG}: expected a model of two sides, got one that writes captions (CoCa)")
    both: Any = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**known)
    load_exactly(both, state, unfit(cfg.name))
    both.visual = nn.Identity()  # the tower below is it
    tower = cfg.build()
    assert isinstance(tower, Tower)
    tower.load_published(state)
    return Pair(tower, both, open_clip.get_tokenizer(f"local-dir:{folder}")).eval()


def read(folder: Path) -> TowerConfig:
    """The config of a folder as open_clip's `push_to_hf_hub` writes it."""
    where = folder / CONFIG
    content = read_json(where)
    known = content.get("model_cfg")
    if not isinstance(known, dict) or not isinstance(known.get("vision_cfg"), dict):
        raise BadInput(f"{where}: key model_cfg: expected open_clip's, with a vision_cfg")
    size = known["vision_cfg"].get("image_size", 224)
    with torch.device("meta"):
        visual = _visual(known, size)
    width, patch = _width_and_patch(visual)
    data = merge_preprocess_dict(PreprocessCfg(), content.get("preprocess_cfg") or {})
    return config.parse(
        TowerConfig,
        {
            "library": "open_clip",
            "name": folder.name,
            "image_size": size,
            "patch": patch,
            "width": width,
            "activation": next((activation_name(function) for function in _activations(visual)), None),
            "mean": data["mean"],
            "std": data["std"],
            "interpolation": "bilinear" if data["interpolation"] == "bilinear" else "bicubic",
            "framing": {"resize": data["resize_mode"], "fill": (data["fill_color"],) * 3},
            "options": known,
        },
        str(where),
    )


def _visual(known: Mapping[str, Any], image_size: int) -> Any:
    vision = {**known["vision_cfg"], "image_size": image_size, "timm_model_pretrained": False}
    clip = open_clip.CLIP(known["embed_dim"], vision, NO_TEXT, quick_gelu=known.get("quick_gelu", False))
    visual: Any = clip.visual
    if isinstance(visual, TimmModel):
        if image_size != known["vision_cfg"].get("image_size", 224):
            visual.set_input_size(image_size)
    elif not isinstance(visual, VisionTransformer) or (visual.pool_type == "none" and visual.attn_pool is None):
        raise BadInput(f"open_clip: expected a ViT with a pooled vector, got {type(visual).__name__}")
    return visual


def _width_and_patch(visual: Any) -> tuple[int, int]:
    if isinstance(visual, TimmModel):
        return timm.width_and_patch(visual.trunk)
    return visual.transformer.width, visual.patch_size[0]


def _activations(visual: Any) -> Iterator[Callable[[Tensor], Tensor]]:
    if isinstance(visual, TimmModel):
        yield from timm.activations(visual.trunk)
    else:
        for block in visual.transformer.resblocks:
            yield block.mlp.gelu

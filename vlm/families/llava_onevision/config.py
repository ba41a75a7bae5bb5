"""`config.json` and the processor's files of LLaVA-OneVision, with the defaults of transformers' classes."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from vlm import config
from vlm.errors import BadInput
from vlm.families import siglip
from vlm.families.llava_onevision.layout import Layout
from vlm.families.pixels import PixelFields
from vlm.families.published import PublishedConfig
from vlm.files import read_json
from vlm.vision.processor_files import read_processor
from vlm.vision.siglip import SigLIPConfig

Candidates = tuple[tuple[PositiveInt, PositiveInt], ...]
SIDES = range(384, 384 * 7, 384)
GRID: Candidates = tuple(product(SIDES, SIDES))
"""(height, width)."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class VisionFields(siglip.VisionFields):
    model_type: Literal["siglip_vision_model"] = "siglip_vision_model"


SO400M = VisionFields(
    hidden_size=1152,
    intermediate_size=4304,
    patch_size=14,
    image_size=384,
    num_hidden_layers=26,
    num_attention_heads=16,
)


class ModelFields(PublishedConfig):
    """`config.json`."""

    vision_config: VisionFields = SO400M
    text_config: dict[str, Any]
    image_token_index: int = 151646
    video_token_index: int = 151647
    projector_hidden_act: Literal["gelu"] = "gelu"
    multimodal_projector_bias: Literal[True] = True
    vision_feature_layer: int = -1
    vision_feature_select_strategy: Literal["full"] = "full"
    vision_aspect_ratio: str = Field("anyres_max_9", pattern=r"^anyres_max_[1-9]\d*$")
    image_grid_pinpoints: Candidates = Field(GRID, min_length=1)
    tie_word_embeddings: bool = False

    def tower(self, where: str) -> SigLIPConfig:
        """The layers that are looked through, without the norm after them. Raises `BadInput` where there are none."""
        vision, layer = self.vision_config, self.vision_feature_layer
        layers = layer if layer >= 0 else vision.num_hidden_layers + 1 + layer
        if not 1 <= layers <= vision.num_hidden_layers:
            least, most = -vision.num_hidden_layers, vision.num_hidden_layers
            raise BadInput(f"{where}: key vision_feature_layer: expected a layer, {least} to {most}, got {layer}")
        whole = vision.tower(f"{where}: vision_config")
        return whole.model_copy(update={"layers": layers, "final_norm": False})

    def layout(self, where: str) -> Layout:
        """Raises `BadInput` for resolutions that are not whole tiles."""
        vision = self.vision_config
        if odd := [
            size for size in self.image_grid_pinpoints if size[0] % vision.image_size or size[1] % vision.image_size
        ]:
            raise BadInput(
                f"{where}: key image_grid_pinpoints: {list(odd[0])} is not a multiple of image_size {vision.image_size}"
            )
        return Layout(
            candidates=tuple((width, height) for height, width in self.image_grid_pinpoints),
            tile=vision.image_size,
            side=vision.image_size // vision.patch_size,
            most=int(self.vision_aspect_ratio.removeprefix("anyres_max_")),
        )


class Square(PublishedConfig):
    height: PositiveInt
    width: PositiveInt


class PictureFields(PixelFields):
    """How pictures, or the frames of clips, become tiles."""

    do_center_crop: Literal[False] | None = None
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD
    size: Square = Square(height=384, width=384)
    image_grid_pinpoints: Candidates | None = None


class ProcessorFields(PublishedConfig):
    image_processor: PictureFields
    video_processor: PictureFields
    num_image_tokens: int | None = None
    vision_aspect_ratio: str = "anyres_max_9"
    vision_feature_select_strategy: Literal["full"] = "full"


def read_configs(folder: Path) -> tuple[ModelFields, ProcessorFields]:
    """The files, and that they agree. Raises `BadInput` naming the file and the key."""
    there = folder / "config.json"
    fields = config.parse(ModelFields, read_json(there), str(there))
    keys, where = read_processor(folder)
    processor = config.parse(ProcessorFields, keys, str(where))
    side = fields.vision_config.image_size
    size = Square(height=side, width=side)
    tokens = fields.layout(str(there)).side ** 2
    grid = processor.image_processor.image_grid_pinpoints
    for key, own, expected in [
        ("image_processor.size", processor.image_processor.size, size),
        ("video_processor.size", processor.video_processor.size, size),
        ("image_processor.image_grid_pinpoints", grid or GRID, fields.image_grid_pinpoints),
        ("num_image_tokens", processor.num_image_tokens or tokens, tokens),
        ("vision_aspect_ratio", processor.vision_aspect_ratio, fields.vision_aspect_ratio),
    ]:
        if own != expected:
            raise BadInput(f"{where}: key {key}: expected {expected}, as in {there}, got {own}")
    return fields, processor

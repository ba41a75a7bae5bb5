"""`config.json` and the processor's file of DeepSeek-VL2.

They leave out what equals the defaults of the authors' classes, so those defaults are here (the language model's:
`vlm.language.checkpoints.families.original_v2`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from vlm import config
from vlm.errors import BadInput
from vlm.families.published import PublishedConfig
from vlm.files import read_json
from vlm.projector import DownsampleConfig, MLPConfig
from vlm.vision.content_tiling import TilingConfig
from vlm.vision.processor_files import ONE, has_processor, read_processor
from vlm.vision.siglip import SigLIPConfig
from vlm.vision.tiling import Size


class VisionFields(PublishedConfig):
    image_size: PositiveInt = 384
    patch_size: PositiveInt = 16
    width: PositiveInt = 1024
    layers: PositiveInt = 24
    heads: PositiveInt = 16
    mlp_ratio: PositiveFloat = 4.0
    class_token: Literal[False] = False
    ignore_head: Literal[True] = True
    global_pool: Literal["map", ""] = "map"

    def tower(self, where: str = "vision_config") -> SigLIPConfig:
        """Raises `BadInput` for sizes that make no tower."""
        return config.parse(
            SigLIPConfig,
            {
                "image_size": self.image_size,
                "patch": self.patch_size,
                "width": self.width,
                "layers": self.layers,
                "heads": self.heads,
                "mlp_width": int(self.width * self.mlp_ratio),
            },
            where,
        )


class ProjectorFields(PublishedConfig):
    projector_type: Literal["downsample_mlp_gelu", "mlp_gelu", "linear"] = "downsample_mlp_gelu"
    input_dim: PositiveInt = 1152
    n_embed: PositiveInt = 2048
    depth: PositiveInt = 2
    mlp_ratio: PositiveInt = 1
    downsample_ratio: PositiveInt = 2
    token_pooling: Literal[False] = False

    def projector(self) -> DownsampleConfig | MLPConfig:
        if self.projector_type == "downsample_mlp_gelu":
            return DownsampleConfig(factor=self.downsample_ratio, depth=self.depth, ratio=self.mlp_ratio)
        return MLPConfig(depth=self.depth if self.projector_type == "mlp_gelu" else 1)


class ModelFields(PublishedConfig):
    """`config.json`."""

    vision_config: VisionFields = VisionFields()
    projector_config: ProjectorFields = ProjectorFields()
    language_config: dict[str, Any]
    tile_tag: Literal["2D"] = "2D"
    global_view_pos: Literal["head", "tail"] = "head"
    candidate_resolutions: tuple[Size, ...] = ((384, 384),)


class ProcessorFields(PublishedConfig):
    """The processor's file."""

    candidate_resolutions: tuple[Size, ...]
    patch_size: PositiveInt
    downsample_ratio: PositiveInt
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    normalize: bool = True
    image_token: str = "<image>"
    pad_token: str = "<｜▁pad▁｜>"  # noqa: RUF001
    sft_format: Literal["deepseek"] = "deepseek"
    tiling: TilingConfig = TilingConfig()
    """Ours, not the authors'."""

    @model_validator(mode="after")
    def _whole_tiles(self) -> ProcessorFields:
        if not self.candidate_resolutions:
            raise ValueError("candidate_resolutions: expected at least one")
        if odd := [size for size in self.candidate_resolutions if size[0] % self.tile or size[1] % self.tile]:
            raise ValueError(f"candidate_resolutions: {odd[0]} is not a multiple of the tile of {self.tile}")
        return self

    @property
    def tile(self) -> int:
        """Side of a tile: of the first candidate."""
        return self.candidate_resolutions[0][0]

    @property
    def side(self) -> int:
        """Visual tokens along a side of a tile."""
        return -(-(self.tile // self.patch_size) // self.downsample_ratio)


def read_configs(folder: Path) -> tuple[ModelFields, ProcessorFields]:
    """Both files, and that they agree. Raises `BadInput` naming the file and the key."""
    where = folder / "config.json"
    fields = config.parse(ModelFields, read_json(where), str(where))
    vision, projector = fields.vision_config, fields.projector_config
    own = {
        "candidate_resolutions": fields.candidate_resolutions, "patch_size": vision.patch_size,
        "downsample_ratio": projector.downsample_ratio,
    }  # fmt: skip
    keys, there = read_processor(folder) if has_processor(folder) else ({}, folder / ONE)
    processor = config.parse(ProcessorFields, own | keys | keys.get("image_processor", {}), str(there))
    if projector.input_dim != vision.width:
        raise BadInput(f"{where}: key projector_config.input_dim: expected {vision.width}, got {projector.input_dim}")
    if processor.tile != vision.image_size:
        raise BadInput(f"{there}: tiles of {processor.tile} pixels, but image_size is {vision.image_size} in {where}")
    tokens = projector.projector().tokens(vision.image_size // vision.patch_size)
    if processor.side**2 != tokens:
        raise BadInput(f"{there}: {processor.side**2} image slots a tile, but the projector in {where} makes {tokens}")
    return fields, processor

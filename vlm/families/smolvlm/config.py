"""`config.json` and the processor's files of SmolVLM, with the defaults of transformers' classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from vlm import config
from vlm.errors import BadInput
from vlm.families import siglip
from vlm.families.pixels import PixelFields
from vlm.families.published import PublishedConfig
from vlm.files import read_json
from vlm.projector import PixelShuffleLinearConfig
from vlm.vision.content_tiling import TilingConfig
from vlm.vision.processor_files import read_processor


class VisionFields(siglip.VisionFields):
    hidden_size: PositiveInt = 1152
    num_attention_heads: PositiveInt = 16
    patch_size: PositiveInt = 32


class ModelFields(PublishedConfig):
    """`config.json`."""

    vision_config: VisionFields = VisionFields()
    text_config: dict[str, Any]
    scale_factor: PositiveInt = 2
    image_token_id: int = 128257
    tie_word_embeddings: bool = False

    def projector(self) -> PixelShuffleLinearConfig:
        return PixelShuffleLinearConfig(factor=self.scale_factor)


class Edge(PublishedConfig):
    longest_edge: PositiveInt


class PictureFields(PixelFields):
    """How pictures, or the frames of clips, become tiles."""

    do_image_splitting: bool = True
    resample: Literal[0, 1, 2, 3] = 1
    size: Edge = Edge(longest_edge=4 * 364)
    max_image_size: Edge = Edge(longest_edge=364)


class ProcessorFields(PublishedConfig):
    images: PictureFields
    clips: PictureFields
    image_seq_len: PositiveInt = 169
    """Image slots a tile."""
    tiling: TilingConfig = TilingConfig()
    """Ours, not the authors'."""


def read_configs(folder: Path) -> tuple[ModelFields, ProcessorFields]:
    """The files, and that they agree. Raises `BadInput` naming the file and the key."""
    where = folder / "config.json"
    fields = config.parse(ModelFields, read_json(where), str(where))
    processor = _read_processor(folder)
    vision = fields.vision_config
    try:
        tokens = fields.projector().tokens(vision.image_size // vision.patch_size)
    except ValueError as error:
        raise BadInput(f"{where}: key scale_factor: {error}") from None
    if processor.image_seq_len != tokens:
        raise BadInput(
            f"{folder / 'processor_config.json'}: key image_seq_len: expected {tokens}, as the projector in {where} "
            f"makes of a tile, got {processor.image_seq_len}"
        )
    for seen in (processor.images, processor.clips):
        if seen.max_image_size.longest_edge != vision.image_size:
            got = seen.max_image_size.longest_edge
            raise BadInput(f"{folder}: key max_image_size: expected {vision.image_size}, the tower's, got {got}")
    return fields, processor


def _read_processor(folder: Path) -> ProcessorFields:
    keys, where = read_processor(folder)
    clips = dict(keys["video_processor"])
    sampling = clips.get("video_sampling") or {}
    if "size" not in clips and "video_size" in sampling:
        clips["size"] = sampling["video_size"]
    parts = {"images": keys["image_processor"], "clips": clips}
    parts |= {key: keys[key] for key in ("image_seq_len", "tiling") if key in keys}
    return config.parse(ProcessorFields, parts, str(where))

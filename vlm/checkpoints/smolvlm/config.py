"""`config.json` and the processor's files of SmolVLM, with the defaults of transformers' classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt

from vlm import config
from vlm.checkpoints.published import Theirs
from vlm.errors import BadInput
from vlm.files import read_json
from vlm.projector import PixelShuffleLinearConfig
from vlm.vision.siglip import SigLIPConfig


class VisionFields(Theirs):
    hidden_size: PositiveInt = 1152
    intermediate_size: PositiveInt = 3072
    num_hidden_layers: PositiveInt = 12
    num_attention_heads: PositiveInt = 16
    num_channels: Literal[3] = 3
    image_size: PositiveInt = 224
    patch_size: PositiveInt = 32
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6

    def tower(self, where: str) -> SigLIPConfig:
        """Raises `BadInput` for what is no SigLIP tower."""
        if self.layer_norm_eps != 1e-6:
            raise BadInput(f"{where}: key layer_norm_eps: expected 1e-06, got {self.layer_norm_eps}")
        sizes = {
            "image_size": self.image_size,
            "patch": self.patch_size,
            "width": self.hidden_size,
            "layers": self.num_hidden_layers,
            "heads": self.num_attention_heads,
            "mlp_width": self.intermediate_size,
        }
        return config.parse(SigLIPConfig, sizes, where)


class ModelFields(Theirs):
    """`config.json`."""

    vision_config: VisionFields = VisionFields()
    text_config: dict[str, Any]
    scale_factor: PositiveInt = 2
    image_token_id: int = 128257
    tie_word_embeddings: bool = False

    def projector(self) -> PixelShuffleLinearConfig:
        return PixelShuffleLinearConfig(factor=self.scale_factor)


class Edge(Theirs):
    longest_edge: PositiveInt


class PictureFields(Theirs):
    """How pictures, or the frames of clips, become tiles."""

    do_resize: Literal[True] = True
    do_rescale: Literal[True] = True
    do_normalize: Literal[True] = True
    do_image_splitting: bool = True
    resample: Literal[0, 1, 2, 3] = 1
    """Pillow's numbers: nearest, Lanczos, bilinear, bicubic."""
    size: Edge = Edge(longest_edge=4 * 364)
    max_image_size: Edge = Edge(longest_edge=364)
    rescale_factor: PositiveFloat = 1 / 255
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)


class ProcessorFields(Theirs):
    images: PictureFields
    clips: PictureFields
    image_seq_len: PositiveInt = 169
    """Image slots a tile."""


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
    """One file with everything (transformers 5), or one for pictures and one for the rest."""
    where = folder / "processor_config.json"
    whole = read_json(where) if where.is_file() else {}
    old = folder / "preprocessor_config.json"
    images = whole.get("image_processor") or read_json(old if old.is_file() else where)
    clips = whole.get("video_processor") or dict(images)
    sampling = clips.get("video_sampling") or {}
    if "size" not in clips and "video_size" in sampling:
        clips["size"] = sampling["video_size"]
    parts = {"images": images, "clips": clips, **{k: v for k, v in whole.items() if k == "image_seq_len"}}
    return config.parse(ProcessorFields, parts, str(where if "image_processor" in whole else old))

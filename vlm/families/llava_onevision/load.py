"""A LLaVA-OneVision folder: `config.json`, safetensors, processor, chat template and tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

from vlm.conversation.chat_template import read_template
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.families.llava_onevision.config import read_configs
from vlm.families.llava_onevision.layout import AnyResolution
from vlm.families.llava_onevision.processor import LlavaProcessor
from vlm.families.published import reply_ends, special_token
from vlm.families.siglip import tower_source
from vlm.language.checkpoints.families import find
from vlm.language.checkpoints.folder import read_model
from vlm.models.assembled import Assembled
from vlm.models.tensor_names import Shape, TensorNames
from vlm.models.vision_language import VisionLanguageModel
from vlm.projector import MLPConfig
from vlm.weights.tensors import open_tensors

WORDS = "language_model."
VISION = ("vision_tower.vision_model.", "vision_tower.")
"""As transformers 4 and 5 have it."""
NAMES = {
    "projector.0.": "multi_modal_projector.linear_1.",
    "projector.2.": "multi_modal_projector.linear_2.",
    "arrangement.newline": "image_newline",
}
"""How our names begin, and theirs."""
END = "<|im_end|>"


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Assembled:
    """The model and its processor. Raises `BadInput` for a config we cannot follow and tensors that do not fit it."""
    where = folder / "config.json"
    fields, processing = read_configs(folder)
    sizes, layout = fields.tower(str(where)), fields.layout(str(where))
    tokenizer = TextTokenizer(folder / "tokenizer.json", reads_control=True)
    pad = tokenizer.control(special_token(folder, "pad_token") or END)
    stop_tokens = frozenset({tokenizer.control(END), *reply_ends(folder)})
    processor = LlavaProcessor(processing, layout, read_template(folder), tokenizer, pad, stop_tokens)
    for key, own, theirs in [
        ("image_token_index", fields.image_token_index, processor.image_token),
        ("video_token_index", fields.video_token_index, processor.video_token),
    ]:
        if own != theirs:
            raise BadInput(f"{where}: key {key}: {own}, but the tokenizer has {theirs}")
    stored = open_tensors(folder)
    words = {name.removeprefix(WORDS): tensor for name, tensor in stored.items() if name.startswith(WORDS)}
    tied = fields.tie_word_embeddings or fields.text_config.get("tie_word_embeddings", False)
    saying = {**fields.text_config, "tie_word_embeddings": tied}
    prefix = next((prefix for prefix in VISION if any(name.startswith(prefix) for name in stored)), VISION[0])

    def source(name: str, shape: Shape) -> dict[str, Shape]:
        if name.startswith("tower."):
            return tower_source(name, shape, prefix)
        ours = next(begin for begin in NAMES if name.startswith(begin))
        return {NAMES[ours] + name.removeprefix(ours): shape}

    names = TensorNames(find(saying.get("model_type", "qwen2")), lambda name: WORDS + name, source)
    language = read_model(saying, names.family, words, folder, full=names.full, dtype=dtype)
    with torch.device("meta"):
        model = VisionLanguageModel(
            sizes.build(),
            MLPConfig(depth=2).build(sizes.width, language.cfg.width),
            AnyResolution(layout, language.cfg.width),
            language,
            image_token=processor.image_token,
            video_token=processor.video_token,
        )
    layers = range(sizes.layers, fields.vision_config.num_hidden_layers)
    unseen = (f"{prefix}post_layernorm.", f"{prefix}head.", *(f"{prefix}encoder.layers.{layer}." for layer in layers))
    rest = {name: tensor for name, tensor in stored.items() if not name.startswith((WORDS, *unseen))}
    names.fill(model, rest, folder, "llava_onevision", dtype)
    return Assembled(folder.name, "llava_onevision", model.eval(), processor, folder=folder, names=names)

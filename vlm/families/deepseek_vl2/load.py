"""A DeepSeek-VL2 folder as its authors publish it: `config.json`, safetensors, processor and tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.families.deepseek_vl2.arrangement import NewlineArrangement
from vlm.families.deepseek_vl2.config import ProcessorFields, read_configs
from vlm.families.deepseek_vl2.processor import DeepSeekProcessor
from vlm.families.published import special_token
from vlm.language.checkpoints.families import original_v2
from vlm.language.checkpoints.folder import read_model
from vlm.models.assembled import Assembled
from vlm.models.tensor_names import Shape, TensorNames
from vlm.models.vision_language import VisionLanguageModel
from vlm.weights.tensors import open_tensors

NAMES = {
    "tower.vit.": "vision.",
    "projector.mlp.": "projector.layers.",
    "projector.": "projector.layers.",
    "arrangement.newline": "image_newline",
    "arrangement.separator": "view_seperator",
}
"""How our names begin, and theirs (the spelling is theirs)."""
WORDS = "language."
UNUSED = "vision.attn_pool."
"""The pooling head, which the model never runs."""
CONTROL_TOKENS = ("<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>", "<|User|>", "<|Assistant|>")


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Assembled:
    """The model and its processor. Raises `BadInput` for a config we cannot follow and tensors that do not fit it."""
    fields, processing = read_configs(folder)
    processor = _processor(folder, processing)
    stored = {name: tensor for name, tensor in open_tensors(folder).items() if not name.startswith(UNUSED)}
    saying = fields.language_config
    words = {name.removeprefix(WORDS): tensor for name, tensor in stored.items() if name.startswith(WORDS)}
    linear = fields.projector_config.projector_type == "linear"
    begins = {"projector.0.": "projector.layers.", **NAMES} if linear else NAMES

    def source(name: str, shape: Shape) -> dict[str, Shape]:
        ours = next(prefix for prefix in begins if name.startswith(prefix))
        return {begins[ours] + name.removeprefix(ours): shape}

    names = TensorNames(original_v2(saying), lambda name: WORDS + name, source)
    language = read_model(saying, names.family, words, folder, full=names.full, dtype=dtype)
    if fields.projector_config.n_embed != language.cfg.width:
        got = fields.projector_config.n_embed
        raise BadInput(
            f"{folder / 'config.json'}: key projector_config.n_embed: expected {language.cfg.width}, got {got}"
        )
    tower = fields.vision_config.tower(f"{folder / 'config.json'}: vision_config")
    with torch.device("meta"):
        model = VisionLanguageModel(
            tower.build(),
            fields.projector_config.projector().build(tower.width, language.cfg.width),
            NewlineArrangement(language.cfg.width, fields.global_view_pos == "head"),
            language,
            image_token=processor.image_token,
        )
    rest = {name: tensor for name, tensor in stored.items() if not name.startswith(WORDS)}
    names.fill(model, rest, folder, "deepseek_vl_v2", dtype)
    return Assembled(folder.name, "deepseek_vl_v2", model.eval(), processor, folder=folder, names=names)


def _processor(folder: Path, processing: ProcessorFields) -> DeepSeekProcessor:
    pad = special_token(folder, "pad_token") or processing.pad_token
    added = [pad, processing.image_token, *CONTROL_TOKENS]
    tokenizer = TextTokenizer(folder / "tokenizer.json", reads_control=True, added=added)
    bos, eos = (tokenizer.control(special_token(folder, key) or key) for key in ("bos_token", "eos_token"))
    return DeepSeekProcessor(processing.model_copy(update={"pad_token": pad}), tokenizer, bos=bos, eos=eos)

"""LLaVA-OneVision folders with random weights, written by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2Tokenizer,
)

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
END = CONTROL.index("<|im_end|>")
VOCAB = 320
TILE, PATCH = 28, 4
"""A tile is 7 x 7 patches: an odd number of them, as the published models' 27."""
GRID = [[TILE * high, TILE * wide] for high in (1, 2, 3) for wide in (1, 2, 3)]
TEXT: dict[str, Any] = {
    "model_type": "qwen2", "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096, "rope_theta": 1e5,
    "bos_token_id": 0, "eos_token_id": END, "pad_token_id": 0,
}  # fmt: skip
VISION: dict[str, Any] = {
    "model_type": "siglip_vision_model", "hidden_size": 24, "intermediate_size": 41, "num_hidden_layers": 3,
    "num_attention_heads": 3, "image_size": TILE, "patch_size": PATCH, "vision_use_head": False,
}  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + START}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ IMAGE }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ VIDEO }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ SAID }}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ SAID }}{% endgeneration %}{% endfor %}{% endif %}{{ END }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LINES = {
    "START": "'\\n'", "IMAGE": "'<image>\\n'", "VIDEO": "'<video>\\n'", "SAID": "content['text']",
    "END": "'<|im_end|>' + '\\n'",
}  # fmt: skip
SPACES = {
    "START": "' '", "IMAGE": "'<image>'", "VIDEO": "'<video>'", "SAID": "'\\n' + content['text']", "END": "'<|im_end|>'"
}  # fmt: skip
"""The published models differ in what stands between the pieces."""


def template(pieces: dict[str, str]) -> str:
    text = TEMPLATE
    for name, piece in pieces.items():
        text = text.replace(name, piece)
    return text


def tokenizer() -> Qwen2Tokenizer:
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=CONTROL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    learnt.train_from_iterator(["user\nWhat is in the picture?\nassistant\nIt is a clip of the sea."] * 3, trainer)
    merges = [tuple(pair) for pair in json.loads(learnt.to_str())["model"]["merges"]]
    return Qwen2Tokenizer(
        vocab=learnt.get_vocab(), merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>"},
        additional_special_tokens=CONTROL[1:3],
    )  # fmt: skip


def write_folder(
    folder: Path, *, layer: int = -1, tied: bool = True, most: int = 4, pieces: dict[str, str] = LINES,
    vision: dict[str, Any] | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """The folder's model and processor, as transformers has them."""
    seeing = VISION | (vision or {})
    ratio = f"anyres_max_{most}"
    config = LlavaOnevisionConfig(
        vision_config=seeing, text_config=TEXT | {"tie_word_embeddings": tied}, vision_feature_layer=layer,
        image_token_index=CONTROL.index("<image>"), video_token_index=CONTROL.index("<video>"),
        image_grid_pinpoints=GRID, vision_aspect_ratio=ratio, tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.normal_(std=0.2 if tensor.ndim == 1 else 1.5 * tensor.shape[-1] ** -0.5)
    model.generation_config.eos_token_id = END
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    size = {"height": TILE, "width": TILE}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=GRID), tokenizer(),
        LlavaOnevisionVideoProcessor(size=size, image_mean=[0.5, 0.4, 0.3]),
        num_image_tokens=(seeing["image_size"] // seeing["patch_size"]) ** 2, vision_feature_select_strategy="full",
        chat_template=template(pieces), vision_aspect_ratio=ratio,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return model, processor


def said(*parts: str, role: str = "user") -> dict[str, Any]:
    """A message; `image` and `video` are places of such."""
    content = [{"type": p} if p in ("image", "video") else {"type": "text", "text": p} for p in parts]
    return {"role": role, "content": content}

"""A folder of SmolVLM-256M's shape with random weights and SmolLM2's tokenizer, which transformers and vlm both load.

The published one is not needed: how long an answer takes depends on shapes alone. Three things differ from it. A
picture is seen as one tile of 512 px, 64 tokens, where the published settings enlarge it to 13 or 17 tiles (tens of
seconds a picture on two cores, on any side). No control token is ever the likeliest, so that every reply is as long as
it may be. And attention looks at few places: a random model with the usual scale falls into loops, which a server that
guesses tokens would be quicker at than at any real text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TILE = 512
TEXT: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 49280, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rope_theta": 1e5,
    "rms_norm_eps": 1e-5,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": TILE, "patch_size": 16,
}  # fmt: skip
SHARPNESS = 4
"""Of queries and keys. Without it a twentieth of the tokens repeat what stood behind the same two, with it none."""
SCALE = 4
"""Of the pixel shuffle: 32 x 32 patches become 64 tokens."""
START, END, IMAGE = "<|im_start|>", "<end_of_utterance>", "<image>"
ADDED = [
    "<fake_token_around_image>", IMAGE, "<global-img>", END,
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
]  # fmt: skip


def write(folder: Path, seed: int = 0) -> Path:
    """The folder, some 1 GB of float32. Raises `VlmError` where SmolLM2's tokenizer cannot be fetched."""
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )
    from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    words = _tokenizer()
    image, start, end = words.convert_tokens_to_ids([IMAGE, START, END])
    config = SmolVLMConfig(
        vision_config=VISION, text_config={**TEXT, "bos_token_id": start, "eos_token_id": end, "pad_token_id": end},
        scale_factor=SCALE, image_token_id=image, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = SmolVLMForConditionalGeneration._from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                tensor.fill_(1)
            elif "embed_tokens" in name:
                tensor.normal_()
            else:
                tensor.normal_(std=0.02 if tensor.ndim == 1 else tensor.shape[-1] ** -0.5)
            if "text_model" in name and name.endswith(("q_proj.weight", "k_proj.weight")):
                tensor *= SHARPNESS
        control = [number for number, token in words.added_tokens_decoder.items() if token.special]
        model.lm_head.weight[control] = 0
        model.lm_head.weight[len(words) :] = 0
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = end
    model.save_pretrained(folder)
    sizes = {"size": {"longest_edge": TILE}, "max_image_size": {"longest_edge": TILE}}
    clips = {"max_frames": 64, "fps": 1, "video_size": sizes["size"]}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(do_image_splitting=True, **sizes), words,
        SmolVLMVideoProcessor(**sizes, video_sampling=clips), image_seq_len=(TILE // 16 // SCALE) ** 2,
        chat_template=DEFAULT_CHAT_TEMPLATE,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    """SmolLM2's, which `nano` has, with SmolVLM's marks."""
    from transformers import PreTrainedTokenizerFast

    from vlm.models.card import load_card
    from vlm.models.parts import pull

    path = pull(load_card("nano"), only=("language",))["language"] / "tokenizer.json"
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path), bos_token=START, eos_token=END, pad_token=END, additional_special_tokens=ADDED
    )

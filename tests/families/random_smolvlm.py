"""SmolVLM folders with random weights, written by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.smolvlm import processing_smolvlm

CONTROL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>",
    "<global-img>", "<row_1_col_1>", "<row_1_col_2>", "<row_2_col_1>",
]  # fmt: skip
VOCAB = 330
TEXT: dict[str, Any] = {
    "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096, "rope_theta": 1e5,
    "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 24, "intermediate_size": 41, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 24,
    "patch_size": 4,
}  # fmt: skip
WORDS = {1: "one", 4: "four", 7: "seven", 12: "twelve", 20: "twenty", 64: "sixty-four", 101: "one hundred and one"}


def tokenizer() -> PreTrainedTokenizerFast:
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=CONTROL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    base.train_from_iterator(["User: What is in the picture? Assistant: Frame from 00:01 video"] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=base, bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_end|>"
    )


def write_folder(
    folder: Path, *, family: str = "smolvlm", vision: dict[str, Any] | None = None, tied: bool = False,
    splitting: bool = True, longest: int = 48,
) -> tuple[Any, Any]:  # fmt: skip
    """The folder's model and processor, as transformers has them."""
    processing_smolvlm.num2words = WORDS.__getitem__  # a package that only writes a number out
    seeing = VISION | (vision or {})
    factor = next(n for n in (2, 3, 5) if (seeing["image_size"] // seeing["patch_size"]) % n == 0)
    config_class, model_class = (
        (SmolVLMConfig, SmolVLMForConditionalGeneration)
        if family == "smolvlm"
        else (Idefics3Config, Idefics3ForConditionalGeneration)
    )
    text = TEXT | {"tie_word_embeddings": tied}
    config = config_class(
        vision_config=seeing, text_config=text, scale_factor=factor, image_token_id=CONTROL.index("<image>"),
        tie_word_embeddings=tied, pad_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = model_class._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.normal_(std=0.2 if tensor.ndim == 1 else 1.5 * tensor.shape[-1] ** -0.5)
    model.generation_config.eos_token_id = CONTROL.index("<end_of_utterance>")
    model.generation_config.pad_token_id = 2
    model.save_pretrained(folder)
    sizes = {"size": {"longest_edge": longest}, "max_image_size": {"longest_edge": seeing["image_size"]}}
    slots = (seeing["image_size"] // seeing["patch_size"] // factor) ** 2
    template = processing_smolvlm.DEFAULT_CHAT_TEMPLATE
    if family == "smolvlm":
        images = SmolVLMImageProcessor(do_image_splitting=splitting, **sizes)
        clips = SmolVLMVideoProcessor(**sizes, video_sampling={"max_frames": 64, "fps": 1, "video_size": sizes["size"]})
        processor = SmolVLMProcessor(images, tokenizer(), clips, image_seq_len=slots, chat_template=template)
    else:
        images = Idefics3ImageProcessor(do_image_splitting=splitting, **sizes)
        processor = Idefics3Processor(images, tokenizer(), image_seq_len=slots, chat_template=template)
    processor.save_pretrained(folder)
    return model, processor


def said(*parts: str, role: str = "user") -> dict[str, Any]:
    """A message; `image` and `video` are places of such."""
    content = [{"type": p} if p in ("image", "video") else {"type": "text", "text": p} for p in parts]
    return {"role": role, "content": content}

"""The sentence encoder: texts to token states.

B texts, T tokens, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vlm.conversation.tokenizer import TextTokenizer, TextTokens
from vlm.files import atomic_write

MAX_TOKENS = 256
"""Of a text; what all-MiniLM-L6-v2 was trained to read."""


class TextStates(NamedTuple):
    tokens_BTD: Tensor
    mask_BT: Tensor
    """True at real tokens."""


class TextEncoder(nn.Module):
    """A transformers encoder (BERT family) read from a folder of config, tokenizer and safetensors."""

    def __init__(self, folder: Path, max_tokens: int = MAX_TOKENS, *, weights: bool = True):
        """`weights=False` leaves it at random: its weights come from elsewhere."""
        from transformers import AutoConfig, AutoModel

        super().__init__()
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if weights:
            self.encoder = AutoModel.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        else:
            self.encoder = AutoModel.from_config(config)
        self.tokenizer = TextTokenizer(folder / "tokenizer.json")
        self.width: int = config.hidden_size
        self.max_tokens = max_tokens

    def save_files(self, folder: Path) -> None:
        """What it needs beside its weights: config and tokenizer."""
        atomic_write(folder / "config.json", self.encoder.config.to_json_string())
        atomic_write(folder / "tokenizer.json", self.tokenizer.to_json())

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, those that begin and end it among them, at most `max_tokens`."""
        return self.tokenizer.encode_batch(texts, special=True, limit=self.max_tokens)

    def text_tokens(self, texts: list[str]) -> list[TextTokens]:
        """How much of each text is read."""
        return self.tokenizer.text_tokens(texts, self.max_tokens, special=True)

    def forward(self, texts: list[str]) -> TextStates:
        """Texts longer than `max_tokens` are cut before the token that ends them."""
        rows = self.tokens(texts)
        longest = max(len(ids) for ids in rows)
        tokens_BT = torch.zeros(len(rows), longest, dtype=torch.long)
        mask_BT = torch.zeros(len(rows), longest, dtype=torch.bool)
        for row, ids in enumerate(rows):
            tokens_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = True
        device = next(self.parameters()).device
        tokens_BT, mask_BT = tokens_BT.to(device), mask_BT.to(device)
        states = self.encoder(input_ids=tokens_BT, attention_mask=mask_BT.long()).last_hidden_state
        return TextStates(states, mask_BT)

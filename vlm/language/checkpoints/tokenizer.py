"""The tokenizer inside a GGUF file."""

from __future__ import annotations

from pathlib import Path


def tokenizer_from_gguf(path: Path) -> str:
    """The content of an equivalent `tokenizer.json`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    return tokenizer.backend_tokenizer.to_str()

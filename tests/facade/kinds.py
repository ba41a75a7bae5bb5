"""One small model of every kind that can be loaded."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import tiny

sys.path.insert(0, str(Path(__file__).parents[1] / "families"))  # the random folders of the families' own tests
import dual
import published
import random_llava_onevision as onevision
import random_smolvlm as smolvlm
import random_vl2 as vl2

import vlm
from vlm.evaluation.served import ServedModel
from vlm.facade import Model


def text_only(folder: Path) -> None:
    """A llama with a tokenizer and a chat template."""
    published.write(published.theirs("llama", vocab_size=320, eos_token_id=0), folder)
    tiny.write_tokenizer(folder / "tokenizer.json")
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    described = {"eos_token": "<|endoftext|>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


WRITERS: dict[str, Callable[[Path], object]] = {
    "a card": lambda folder: tiny.write_card(folder),
    "SmolVLM": lambda folder: smolvlm.write_folder(folder),
    "LLaVA-OneVision": lambda folder: onevision.write_folder(folder),
    "DeepSeek-VL2": lambda folder: vl2.write_folder(folder),
    "a language model": text_only,
    "CLIP": lambda folder: dual.save_dual(folder, "clip"),
    "SigLIP 2": lambda folder: dual.save_dual(folder, "siglip2"),
    "open_clip": lambda folder: dual.save_open_clip_dual(folder),
}
SERVER = "a server by address"


def write(kind: str, folder: Path) -> str:
    """The folder, or the card, of a model of this kind: what `--model` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    made = WRITERS[kind](folder)
    return str(made) if kind == "a card" else str(folder)


def load(kind: str, folder: Path) -> Model:
    return served() if kind == SERVER else vlm.load(write(kind, folder), offline=True)


def served() -> Model:
    """A server that embeds everything alike but for its length."""

    def answer(request: httpx.Request) -> httpx.Response:
        inputs = json.loads(request.content)["input"]
        rows = [np.array([1.0, len(json.dumps(one)) % 7, 0.0], "<f4") for one in inputs]
        units = [(row / np.linalg.norm(row)).astype("<f4") for row in rows]
        data = [{"embedding": base64.b64encode(unit.tobytes()).decode()} for unit in units]
        return httpx.Response(200, json={"model": "served", "data": data})

    client = httpx.Client(base_url="http://server", transport=httpx.MockTransport(answer))
    return ServedModel("http://server", client)

"""Published parts, converted once into our own layout and kept in the cache.

A converted folder holds `model.safetensors` under our names, and the part's tokenizer or config where it has one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from pathlib import Path

from safetensors.torch import load_file, save_file

from vlm.errors import BadInput
from vlm.files import atomic_folder
from vlm.language.checkpoints.llama import read_gguf
from vlm.language.checkpoints.tokenizer import tokenizer_from_gguf
from vlm.models.card import ModelCard
from vlm.projector.checkpoints import from_blip2
from vlm.registry import Registry
from vlm.vision.checkpoints import read_dinov2_onnx
from vlm.weights.fetching import fetch
from vlm.weights.parts import Fetched, cache_dir

CONVERTERS: Registry[Callable[[dict[str, Path], Path], None]] = Registry("weight format")
"""What writes a part's files into a folder."""


@CONVERTERS.register("dinov2_onnx")
def _dinov2_onnx(files: dict[str, Path], folder: Path) -> None:
    save_file(read_dinov2_onnx(files["model.onnx"]), folder / "model.safetensors")


@CONVERTERS.register("llama_gguf")
def _llama_gguf(files: dict[str, Path], folder: Path) -> None:
    cfg, state = read_gguf(files["model.gguf"])
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(cfg.model_dump_json(indent=1))
    (folder / "tokenizer.json").write_text(tokenizer_from_gguf(files["model.gguf"]))


@CONVERTERS.register("blip2_q_former")
def _blip2_q_former(files: dict[str, Path], folder: Path) -> None:
    shards = [path for name, path in files.items() if name.endswith(".safetensors")]
    try:
        state = from_blip2({name: tensor for path in shards for name, tensor in load_file(path).items()})
    except ValueError as error:
        raise BadInput(f"{', '.join(files)}: {error}") from None
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")


@CONVERTERS.register("hf")
@CONVERTERS.register("timm")
def _as_it_is(files: dict[str, Path], folder: Path) -> None:
    for name, path in files.items():
        (folder / name).write_bytes(path.read_bytes())


VERSION = 1
"""Raised when a converter's output changes, so that old conversions are made anew."""


def pull(
    card: ModelCard,
    *,
    only: Container[str] | None = None,
    offline: bool = False,
    report: Callable[[str], None] | None = None,
) -> dict[str, Path]:
    """Fetch and convert what `card` needs, or `only` some of its parts; part -> converted folder. The second time
    nothing is read but names."""
    return {
        name: _converted(f"{card.name}/{name}", fetch(f"{card.name}/{name}", part, offline=offline, report=report))
        for name, part in card.parts.items()
        if only is None or name in only
    }


def _converted(name: str, fetched: Fetched) -> Path:
    convert = CONVERTERS[fetched.format]
    home = cache_dir() / "converted" / f"{fetched.key}-{VERSION}"
    if not (home / "done.json").is_file():
        with atomic_folder(home) as folder:
            convert(fetched.files, folder)
            (folder / "done.json").write_text(json.dumps({"part": name, "format": fetched.format}))
    return home

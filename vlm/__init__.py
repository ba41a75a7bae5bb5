"""vlm: vision-language models. `vlm.load(name)` gives a model that captions, answers, embeds and retrieves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlm import threads

threads.prepare()  # before torch is imported

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pathlib import Path

    from vlm.api import Model


def load(name_or_path: str | Path, **options: Any) -> Model:
    """A model by the name or path of its card, or its folder or name on the hub. See `vlm.api.load`."""
    from vlm.api import load as load_model

    return load_model(name_or_path, **options)

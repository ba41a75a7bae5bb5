"""`vlm models` and `vlm pull`: which models there are, and their published parts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vlm import assets
from vlm.cli.options import AsJson, Offline
from vlm.cli.output import emit, say, table, working
from vlm.config import Config, load
from vlm.errors import VlmError
from vlm.weights import hub
from vlm.weights.fetching import fetch
from vlm.weights.parts import Part


class _Listed(Config, extra="ignore"):
    """What a list shows of a card: the rest is read with torch."""

    about: str
    licence: str
    parts: dict[str, Part]


def models(as_json: AsJson = False) -> None:
    """List the models and whether their parts are here."""
    listed: list[dict[str, Any]] = []
    for name, path in assets.cards("configs/models").items():
        card = load(_Listed, path)
        parts = {key: _is_here(f"{name}/{key}", part) for key, part in card.parts.items()}
        about = {"name": name, "about": card.about, "licence": card.licence, "parts": parts}
        listed.append({**about, "from": assets.origin(path)})
    if as_json:
        emit({"models": listed})
        return
    rows = []
    for model in listed:
        missing = [part for part, here in model["parts"].items() if not here]
        state = f"needs `vlm pull {model['name']}` ({', '.join(missing)})" if missing else "here"
        rows.append([model["name"], model["about"], model["licence"], state, model["from"]])
    table(["name", "about", "licence", "parts", "from"], rows)


def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A model of `vlm models`, the path of a card, or a hub's OWNER/NAME.")
    ],
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Fetch a model's published parts.

    They are converted once and kept; the second time nothing is downloaded.
    """
    published = hub.is_repository(name)
    path = None if published else assets.find_card("configs/models", name, "model")
    with working(f"pulling {name}") as advance:
        from vlm.models.card import load_card
        from vlm.models.parts import pull as pull_parts

        def report(line: str) -> None:
            if not line.endswith(" MB"):
                say(line)
            advance(0, line)

        if published:
            folders = {"folder": hub.snapshot(name, offline=offline, report=report)}
        else:
            folders = pull_parts(load_card(str(path)), offline=offline, report=report)
    if as_json:
        emit({"model": name, "parts": {part: str(folder) for part, folder in folders.items()}})
    else:
        print(f"{name}: {'its files' if published else ', '.join(folders)} are here")


def _is_here(name: str, part: Part) -> bool:
    try:
        fetch(name, part, offline=True)
    except VlmError:
        return False
    return True

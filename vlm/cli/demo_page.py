"""The demo's page: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined
from PIL import Image

if TYPE_CHECKING:
    from vlm.cli.demo_report import Report


def page(report: Report) -> str:
    """The page as text; its pictures are data URIs."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["uri"] = data_uri
    template = (files("vlm.cli") / "demo.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(report=report)


def data_uri(image: Image.Image, longer_side: int) -> str:
    """A JPEG of at most `longer_side` pixels as a data URI."""
    small = image.copy()
    small.thumbnail((longer_side, longer_side))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

"""A language model alone: `config.json`, safetensors, tokenizer and, where it has one, a chat template.

T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vlm.conversation.budget import PictureTokens
from vlm.conversation.chat_template import read_template, render
from vlm.conversation.inputs import Grid
from vlm.conversation.messages import Message
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.families.published import reply_ends, special_token
from vlm.files import read_json
from vlm.language.checkpoints.families import of_config
from vlm.language.checkpoints.folder import holds_heads, read_model
from vlm.media.open import Media
from vlm.models.arrangements import FlatArrangement
from vlm.models.assembled import Assembled
from vlm.models.processor import Layout, Processor
from vlm.models.tensor_names import TensorNames
from vlm.models.vision_language import VisionLanguageModel
from vlm.weights.tensors import open_tensors

NO_PICTURE = -1
"""Stands for no token."""


class TextProcessor(Processor):
    """Conversations without pictures, as the folder's chat template has them; without one, their texts in a row."""

    image_token = NO_PICTURE
    pad_token = NO_PICTURE

    def __init__(
        self, tokenizer: TextTokenizer, template: str | None, stop_tokens: frozenset[int], specials: dict[str, str]
    ):
        """`specials` are the special tokens that a template may name, `bos_token` for one."""
        self.tokenizer, self.template, self.stop_tokens, self.specials = tokenizer, template, stop_tokens, specials

    def layouts(self, messages: Sequence[Message], media: Sequence[Media]) -> list[Layout]:
        if media:
            raise BadInput(f"messages: expected texts only of a language model, got {len(media)} pictures and clips")
        return []

    def ids(self, messages: Sequence[Message], media: Sequence[Media], layouts: Sequence[Layout]) -> list[int]:
        if self.template is None:
            return self.tokenizer.encode("\n".join(message.text for message in messages))
        said = [{"role": message.role, "content": message.text} for message in messages]
        return self.tokenizer.encode(render(self.template, said, self.specials))

    def reply(self, text: str) -> list[int]:
        return [*self.tokenizer.encode(text.strip()), *sorted(self.stop_tokens)[:1]]

    def pixels(self, item: Media, layout: Layout) -> Tensor:
        raise BadInput("pixels: expected none, since this model reads texts only")

    def picture_tokens(self, grid: Grid) -> PictureTokens:
        return PictureTokens(0)


def load(folder: Path, dtype: torch.dtype = torch.float32, multi_token: bool = False) -> Assembled:
    """The model and its processor; with `multi_token` its heads too, where there are any. Raises `BadInput` for a
    config we cannot follow and tensors that do not fit it."""
    where = folder / "config.json"
    fields = read_json(where)
    family = of_config(fields, str(where))
    stored = open_tensors(folder)
    heads = multi_token and holds_heads(fields, family, stored, str(where))
    language = read_model(fields, family, stored, folder, dtype=dtype, multi_token=heads)
    tokenizer = TextTokenizer(folder / "tokenizer.json", reads_control=True)
    specials = {key: token for key in ("bos_token", "eos_token") if (token := special_token(folder, key))}
    own = fields.get("eos_token_id")
    stop_tokens = {*reply_ends(folder), *(own if isinstance(own, list) else [own] if own is not None else [])}
    if "eos_token" in specials:
        stop_tokens.add(tokenizer.control(specials["eos_token"]))
    if not stop_tokens:
        raise BadInput(f"{where}: key eos_token_id: expected the token that ends a reply, here or in its tokenizer")
    model = VisionLanguageModel(None, nn.Identity(), FlatArrangement(), language, image_token=NO_PICTURE)
    processor = TextProcessor(tokenizer, _template(folder), frozenset(stop_tokens), specials)
    names = TensorNames(family, lambda name: name, lambda name, shape: {})
    return Assembled(folder.name, family.name, model.eval(), processor, folder=folder, names=names)


def _template(folder: Path) -> str | None:
    there = any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json"))
    if there:
        return read_template(folder)
    path = folder / "tokenizer_config.json"
    found = read_json(path).get("chat_template") if path.is_file() else None
    return found if isinstance(found, str) else None

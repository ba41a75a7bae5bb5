"""LLaVA-OneVision's processor: conversations, pictures and clips to ids, tiles and grids.

T tokens, I pictures and clips, N tiles and frames of all of them, C channels, H rows, W columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlm.conversation.budget import PictureTokens
from vlm.conversation.chat_template import render
from vlm.conversation.inputs import Grid
from vlm.conversation.messages import IMAGE, MARKS, VIDEO, Message
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.families.llava_onevision import pictures
from vlm.families.llava_onevision.config import ProcessorFields
from vlm.families.llava_onevision.layout import WHOLE
from vlm.families.llava_onevision.layout import Layout as TokenLayout
from vlm.families.pixels import normalised
from vlm.media.open import Media
from vlm.models.processor import Layout, Processor, Prompt


class LlavaProcessor(Processor):
    """Ids and pixels are those of transformers' processor (tested); control tokens in a text are read.

    The model is shown a message's pictures first, then its clips, then its text. The only picture of a conversation is
    seen in tiles and its grid is its (width, height); several are seen as a whole each, (0, 0); the grid of a clip of n
    frames is (n, 0).
    """

    placeholders = MARKS

    def __init__(
        self,
        fields: ProcessorFields,
        layout: TokenLayout,
        template: str,
        tokenizer: TextTokenizer,
        pad_token: int,
        stop_tokens: frozenset[int],
    ):
        self.fields, self.layout, self.template, self.tokenizer = fields, layout, template, tokenizer
        self.image_token, self.video_token = tokenizer.control(IMAGE), tokenizer.control(VIDEO)
        self.pad_token, self.stop_tokens = pad_token, stop_tokens

    def prompt(self, messages: Sequence[Message], media: Sequence[Media]) -> Prompt:
        """With pictures and clips in the order in which the template shows them."""
        prompt = super().prompt(messages, media)
        rows = list(zip(prompt.media, prompt.layouts, strict=True))
        coming = {
            self.image_token: iter([row for row in rows if not row[0].is_clip]),
            self.video_token: iter([row for row in rows if row[0].is_clip]),
        }
        shown: list[tuple[Media, Layout]] = []
        left = 0
        for token in prompt.ids:
            if token in coming and not left:
                shown.append(next(coming[token]))
                left = self.visual_tokens(shown[-1][1].grids[0])
            left -= token in coming
        return Prompt(prompt.ids, tuple(item for item, _ in shown), tuple(layout for _, layout in shown))

    def layouts(self, messages: Sequence[Message], media: Sequence[Media]) -> list[Layout]:
        kinds = [part.kind for message in messages for part in message.parts if part.kind != "text"]
        for number, (kind, item) in enumerate(zip(kinds, media, strict=True)):
            got = "video" if item.is_clip else "image"
            if got != kind:
                raise BadInput(
                    f"images: expected what a part of type {kind} shows at place {number + 1}, got one of {got}"
                )
        alone = kinds.count("image") == 1
        return [
            Layout(((len(item.frames), 0) if item.is_clip else item.frames[0].size if alone else WHOLE,))
            for item in media
        ]

    def ids(self, messages: Sequence[Message], media: Sequence[Media], layouts: Sequence[Layout]) -> list[int]:
        said: list[dict[str, Any]] = []
        for number, (role, parts) in enumerate(messages):
            if parts or role != "assistant" or number + 1 < len(messages):  # else its reply is only begun
                content = [{"type": kind} | ({"text": text} if kind == "text" else {}) for kind, text in parts]
                said.append({"role": role, "content": content})
        slots: dict[str, list[int]] = {IMAGE: [], VIDEO: []}
        for item, layout in zip(media, layouts, strict=True):
            slots[VIDEO if item.is_clip else IMAGE].append(self.visual_tokens(layout.grids[0]))
        pieces = re.split(f"({IMAGE}|{VIDEO})", render(self.template, said))
        for mark, kind in MARKS.items():
            if pieces.count(mark) != len(slots[mark]):
                got = f"{len(slots[mark])} places in the messages, but the chat template makes {pieces.count(mark)}"
                raise BadInput(f"messages: expected as many {mark} as parts of type {kind}, got {got}")
        for place, piece in enumerate(pieces):
            if piece in MARKS:
                pieces[place] = piece * slots[piece].pop(0)
        return self.tokenizer.encode("".join(pieces))

    def reply(self, text: str) -> list[int]:
        return [*self.tokenizer.encode(text.strip()), self.tokenizer.control("<|im_end|>")]

    def pixels(self, item: Media, layout: Layout) -> Tensor:
        if item.is_clip:
            clips = self.fields.video_processor
            seen = [pictures.frame(frame.convert("RGB"), clips, self.layout) for frame in item.frames]
            return normalised(torch.cat(seen), clips)
        fields, image = self.fields.image_processor, item.frames[0]
        made = pictures.whole if layout.grids[0] == WHOLE else pictures.split
        return normalised(made(image, fields, self.layout), fields)

    def picture_tokens(self, grid: Grid) -> PictureTokens:
        return self.layout.picture_tokens(grid)

    def by_size(self, media: Sequence[Media]) -> bool:
        return len(media) == 1 and not media[0].is_clip

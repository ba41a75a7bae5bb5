"""LLaVA-OneVision's processor: conversations, pictures and clips to ids, tiles and grids.

T tokens, I pictures and clips, N tiles and frames of all of them, C channels, H rows, W columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlm.conversation.budget import PictureTokens
from vlm.conversation.messages import IMAGE, VIDEO, parts_of, render, role_of
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.families.llava_onevision import pictures
from vlm.families.llava_onevision.config import ProcessorFields
from vlm.families.llava_onevision.layout import WHOLE, Layout
from vlm.families.pixels import normalised
from vlm.media.images import ImageSource, load_image
from vlm.media.video.sampling import Clip
from vlm.models.tiled import Grid, Inputs

MARKS = {IMAGE: "image", VIDEO: "video"}


class Processor:
    """Ids and pixels are those of transformers' processor (tested); control tokens in a text are read."""

    def __init__(self, fields: ProcessorFields, layout: Layout, template: str, tokenizer: TextTokenizer):
        self.fields, self.layout, self.template, self.tokenizer = fields, layout, template, tokenizer
        self.image_token, self.video_token = tokenizer.control(IMAGE), tokenizer.control(VIDEO)

    def __call__(
        self, messages: Sequence[Mapping[str, Any]], images: Sequence[ImageSource | Clip] | None = None
    ) -> Inputs:
        """`input_ids [1, T]`, `pixels [N, 3, H, W]`, `grids [I, 2]`; the last two are `None` without pictures.

        A message has a `role` (`user`, `assistant`, `system`) and as `content` a text with `<image>` and `<video>`
        where pictures and clips stand, or a list of parts: `{"type": "text", "text": ...}`, `{"type": "image"}`,
        `{"type": "video"}`. `images` are the pictures and clips in that order; the model is shown a message's pictures
        first, then its clips, then its text. The only picture of a conversation is seen in tiles and its grid is its
        (width, height); several are seen as a whole each, (0, 0); the grid of a clip of n frames is (n, 0). Raises
        `BadInput` where pictures and clips do not fit their places.
        """
        said: list[dict[str, Any]] = []
        kinds: list[str] = []
        for number, message in enumerate(messages):
            where = f"message {number + 1}"
            role, parts = role_of(message, where), parts_of(message, where, MARKS)
            kinds += [part.kind for part in parts if part.kind != "text"]
            if parts or role != "assistant" or number + 1 < len(messages):  # else its reply is only begun
                content = [{"type": kind} | ({"text": text} if kind == "text" else {}) for kind, text in parts]
                said.append({"role": role, "content": content})
        seen = self._seen(kinds, images or ())
        pieces = re.split(f"({IMAGE}|{VIDEO})", render(self.template, said))
        for mark, kind in MARKS.items():
            if pieces.count(mark) != len(seen[kind]):
                got = f"{len(seen[kind])} places in the messages, but the chat template makes {pieces.count(mark)}"
                raise BadInput(f"messages: expected as many {mark} as parts of type {kind}, got {got}")
        shown: list[tuple[Tensor, Grid]] = []
        for place, piece in enumerate(pieces):
            if piece in MARKS:
                shown.append(seen[MARKS[piece]].pop(0))
                pieces[place] = piece * self.layout.tokens(shown[-1][1])
        ids = torch.tensor([self.tokenizer.encode("".join(pieces))])
        if not shown:
            return Inputs(ids, None, None)
        pixels, grids = zip(*shown, strict=True)
        return Inputs(ids, torch.cat(pixels), torch.tensor(grids))

    def question(self, text: str, seen: Image.Image | Clip) -> Inputs:
        """A question about a picture or a clip."""
        kind = "video" if isinstance(seen, Clip) else "image"
        return self([{"role": "user", "content": [{"type": kind}, {"type": "text", "text": text}]}], [seen])

    def visual_tokens(self, grid: Grid) -> int:
        """Image slots of a picture or clip with this grid: known before the model runs."""
        return self.layout.tokens(grid)

    def picture_tokens(self, grid: Grid) -> PictureTokens:
        """The same with what it is made of."""
        return self.layout.counted(grid)

    def decode(self, ids: list[int]) -> str:
        """Without control tokens."""
        return self.tokenizer.decode(ids)

    def _seen(self, kinds: Sequence[str], images: Sequence[ImageSource | Clip]) -> dict[str, list[tuple[Tensor, Grid]]]:
        """Pixels and grid of each picture (`image`) and clip (`video`)."""
        if len(kinds) != len(images):
            raise BadInput(f"messages: expected places for {len(images)} pictures and clips, got {len(kinds)}")
        seen: dict[str, list[tuple[Tensor, Grid]]] = {"image": [], "video": []}
        for number, (kind, image) in enumerate(zip(kinds, images, strict=True)):
            got = "video" if isinstance(image, Clip) else "image"
            if got != kind:
                raise BadInput(
                    f"images: expected what a part of type {kind} shows at place {number + 1}, got one of {got}"
                )
            seen[kind].append(self._clip(image) if isinstance(image, Clip) else self._picture(image, kinds.count(kind)))
        return seen

    def _picture(self, source: ImageSource, pictures_in_all: int) -> tuple[Tensor, Grid]:
        image, fields = load_image(source), self.fields.image_processor
        if pictures_in_all > 1:
            return normalised(pictures.whole(image, fields, self.layout), fields), WHOLE
        return normalised(pictures.split(image, fields, self.layout), fields), image.size

    def _clip(self, clip: Clip) -> tuple[Tensor, Grid]:
        if not clip.frames:
            raise BadInput(f"{clip.source}: expected a clip of at least one frame, got none")
        fields = self.fields.video_processor
        frames = [pictures.frame(frame.convert("RGB"), fields, self.layout) for frame in clip.frames]
        return normalised(torch.cat(frames), fields), (len(frames), 0)

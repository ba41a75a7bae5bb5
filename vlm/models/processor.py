"""From a conversation to a model's inputs: the one place where a prompt with pictures is made.

Captioning, asking, matching, training and counting all go through a `Processor`. It works in three steps, so that
counting needs no pixels and a picture is preprocessed once however often it is asked about: the layout of what is
shown, from sizes alone; the ids; the pixels. T tokens, I pictures, N tiles of all pictures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm.conversation.budget import PictureTokens, TokenBudget
from vlm.conversation.inputs import Grid, Inputs
from vlm.conversation.messages import IMAGE, Message, Messages, question, read_messages
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput
from vlm.media.open import Media, MediaSource, open_media

Open = Callable[[MediaSource], Media]


@dataclass(frozen=True)
class Layout:
    """How one picture or clip will be seen: known before any of its pixels are made."""

    grids: tuple[Grid, ...]
    """One of a picture; of a clip one, or one for each frame, as the family tells them apart."""
    edge: int | None = None
    """What else its pixels depend on."""


@dataclass(frozen=True)
class Prompt:
    """A conversation as token ids, with its pictures and clips and the layout of each."""

    ids: list[int]
    media: tuple[Media, ...]
    layouts: tuple[Layout, ...]


class Processor(ABC):
    """A family's prompts and pixels. `image_token` (and `video_token`) stand at image slots, `pad_token` is padding,
    `stop_tokens` are the tokens that end a reply."""

    tokenizer: TextTokenizer
    image_token: int
    video_token: int | None = None
    pad_token: int
    stop_tokens: frozenset[int]
    squashed: tuple[int, str] | None = None
    """The side and Pillow's filter by which every picture becomes a square before anything else, where that does not
    depend on the picture: whoever decodes one may do it there."""
    placeholders: Mapping[str, str] = {IMAGE: "image"}
    """Texts that stand for pictures and clips in a message."""

    @abstractmethod
    def layouts(self, messages: Sequence[Message], media: Sequence[Media]) -> list[Layout]:
        """How each picture and clip of a conversation is seen. Raises `BadInput` for what cannot be."""

    @abstractmethod
    def ids(self, messages: Sequence[Message], media: Sequence[Media], layouts: Sequence[Layout]) -> list[int]:
        """The tokens of a conversation up to where the reply begins, or goes on after words of the assistant."""

    @abstractmethod
    def pixels(self, item: Media, layout: Layout) -> Tensor:
        """float32 `[N, C, H, W]`: the tiles of one picture or clip."""

    @abstractmethod
    def picture_tokens(self, grid: Grid) -> PictureTokens:
        """The image slots of a picture with this grid."""

    def by_size(self, media: Sequence[Media]) -> bool:
        """Whether a picture of more pixels has more image slots, where these are a conversation's."""
        return False

    @abstractmethod
    def reply(self, text: str) -> list[int]:
        """The tokens of a reply behind `ids`, the one that ends it last: what is learned, or measured."""

    def user_messages(self, text: str, item: Media) -> list[Message]:
        """The messages in which a user asks `text` about one picture or clip."""
        return question(text, item.is_clip)

    def question(self, text: str, source: MediaSource) -> Inputs:
        """The inputs of a user's words about one picture or clip."""
        item = open_media(source)
        return self.inputs(self.prompt(self.user_messages(text, item), [item]))

    def visual_tokens(self, grid: Grid) -> int:
        """How many image slots a picture with this grid has."""
        return self.picture_tokens(grid).tokens

    def media_tokens(self, layout: Layout) -> tuple[PictureTokens, ...]:
        """The visual tokens of one picture or clip, as a budget lists them."""
        return tuple(self.picture_tokens(grid) for grid in layout.grids)

    def decode(self, ids: list[int]) -> str:
        """The text of a reply, without control tokens."""
        return self.tokenizer.decode(ids)

    def prompt(self, messages: Sequence[Message], media: Sequence[Media]) -> Prompt:
        """The prompt of a conversation whose pictures and clips are open; no pixels are made."""
        for item in media:
            if not item.frames:
                raise BadInput(f"{item.source}: expected a clip of at least one frame, got none")
        layouts = self.layouts(messages, media)
        return Prompt(self.ids(messages, media, layouts), tuple(media), tuple(layouts))

    def read(
        self, messages: Messages, images: Sequence[MediaSource] | None = None, open_one: Open = open_media
    ) -> Prompt:
        """The prompt of messages as a caller writes them (`vlm.conversation.messages`)."""
        said, sources = read_messages(messages, images, self.placeholders)
        return self.prompt(said, [open_one(source) for source in sources])

    def __call__(
        self, messages: Messages, images: Sequence[MediaSource] | None = None, open_one: Open = open_media
    ) -> Inputs:
        """`input_ids [1, T]`, `pixels [N, C, H, W]`, `grids [I, 2]` of one conversation; without pictures the last two
        are `None`. `images` are its pictures and clips in reading order. Raises `BadInput` where they and their places
        differ in number."""
        return self.inputs(self.read(messages, images, open_one))

    def inputs(self, prompt: Prompt) -> Inputs:
        """The model's inputs: the ids, and the pixels of each distinct picture, made once."""
        ids = torch.tensor([prompt.ids])
        if not prompt.media:
            return Inputs(ids, None, None)
        made: dict[tuple[int, Layout], Tensor] = {}
        keys = [(id(item), layout) for item, layout in zip(prompt.media, prompt.layouts, strict=True)]
        for key, item, layout in zip(keys, prompt.media, prompt.layouts, strict=True):
            if key not in made:
                made[key] = self.pixels(item, layout)
        grids = [grid for layout in prompt.layouts for grid in layout.grids]
        return Inputs(ids, torch.cat(_as_long([made[key] for key in keys])), torch.tensor(grids))

    def budget(self, prompt: Prompt, max_tokens: int, context: int) -> TokenBudget:
        """What a conversation and a reply of up to `max_tokens` cost, of the `context` that the model reads."""
        pictures = tuple(picture for layout in prompt.layouts for picture in self.media_tokens(layout))
        words = len(prompt.ids) - sum(picture.tokens for picture in pictures)
        sources = ", ".join(dict.fromkeys(item.source for item in prompt.media if item.source))
        return TokenBudget(pictures, words, max_tokens, context, sources)


def _as_long(pixels: list[Tensor]) -> list[Tensor]:
    """Pictures in shapes of their own, `[N, patches, numbers]`, padded to the longest; tiles as they are."""
    if pixels[0].ndim > 3:
        return pixels
    longest = max(item.shape[1] for item in pixels)
    return [torch.nn.functional.pad(item, (0, 0, 0, longest - item.shape[1])) for item in pixels]

"""What pictures and a prompt cost, counted before a model runs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from vlm.errors import BadInput


@dataclass(frozen=True)
class PictureTokens:
    """Of one picture, or of a frame of a clip."""

    tokens: int
    """Image slots, the separators among them."""
    tiles: tuple[int, int] = (0, 0)
    """Tiles wide and high, beside the view of the whole; (0, 0) where that is all."""
    separators: int = 0
    """Learned vectors at ends of rows and between views."""
    frames: int = 1
    """More than one where a clip's frames share their tokens."""

    def __str__(self) -> str:
        wide, high = self.tiles
        seen = f"{wide}x{high} tiles and the whole, " if wide * high else ""
        return f"{seen or (f'{self.frames} frames, ' if self.frames > 1 else '')}{self.tokens:,} tokens"


@dataclass(frozen=True)
class TokenBudget:
    """Of one request: its pictures, its words, and the reply it leaves room for."""

    pictures: tuple[PictureTokens, ...]
    prompt: int
    """Everything but image slots: words, the template, marks and times of tiles and frames."""
    reply: int
    """At most."""
    context: int
    """The most tokens the language model reads."""
    source: str = ""

    @property
    def visual(self) -> int:
        return sum(picture.tokens for picture in self.pictures)

    @property
    def total(self) -> int:
        return self.visual + self.prompt + self.reply

    def __str__(self) -> str:
        """One line: `3x2 tiles and the whole, 1,009 tokens; prompt 23; reply up to 32; 1,064 of 4,096`."""
        return f"{self._seen()}; prompt {self.prompt:,}; reply up to {self.reply:,}; {self.total:,} of {self.context:,}"

    def check(self) -> TokenBudget:
        """Itself. Raises `BadInput` where it is more than the language model reads."""
        if self.total > self.context:
            words = f"{self.visual} visual tokens, {self.prompt} of the prompt and a reply of up to {self.reply}"
            where = f"{self.source}: " if self.source else ""
            raise BadInput(f"{where}{words} are {self.total} tokens; the language model reads at most {self.context}")
        return self

    def _seen(self) -> str:
        if len(self.pictures) == 1:
            return str(self.pictures[0])
        runs = [(picture, len([*same])) for picture, same in groupby(self.pictures)]
        parts = [f"{number} x ({picture})" if number > 1 else f"({picture})" for picture, number in runs]
        return f"{' + '.join(parts)} = {self.visual:,} tokens" if parts else "no pictures"

"""What a command left out or changed: said on stderr, added up, and listed in its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from vlm.cli.output import say
from vlm.files import name_text
from vlm.notes import Notes

if TYPE_CHECKING:
    from vlm.media.open import Media, Skipped


class Told:
    """Of one run: inputs that could not be used, each with the reason, and notes on what was lost of the others."""

    def __init__(self, skipped: Sequence[Skipped] = ()) -> None:
        self.skipped, self.notes = list(skipped), Notes()

    def skip(self, item: str, reason: object) -> None:
        from vlm.media.open import Skipped

        self.skipped.append(Skipped(name_text(item), str(reason)))

    def opened(self, media: Media) -> Media:
        """The same, its notes taken down."""
        self.notes.extend(name_text(media.source), media.notes)
        return media

    def texts(self, texts: Sequence[str], lost: Sequence[Sequence[str]]) -> None:
        """What the model loses of each text (`Model.text_notes`)."""
        from vlm.conversation.texts import add_losses

        add_losses(self.notes, texts, lost)

    def say(self, key: str = "input") -> dict[str, list[dict[str, Any]]]:
        """Says it all on stderr; gives the parts of a JSON object that there is something to say in."""
        for item in self.skipped:
            say(item.reason)
        for line in self.notes.lines():
            say(f"note: {line}")
        skipped = [{key: item.input, "reason": item.reason} for item in self.skipped]
        return {**({"skipped": skipped} if skipped else {}), **({"notes": self.notes.as_json()} if self.notes else {})}

    def end(self) -> None:
        """Ends the command with 2 where something was skipped."""
        if self.skipped:
            raise typer.Exit(2)

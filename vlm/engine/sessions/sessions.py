"""Conversations whose read state outlives the process: what an engine remembers of one, in a file, and back.

The keys under which an engine remembers are its own. They are made again from what the file says was said and shown, so
a file can say nothing of another conversation or picture; but what it holds of its own is believed, as a model's
weights are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from vlm import config
from vlm.config import Config
from vlm.conversation.messages import Conversation
from vlm.engine.sessions import conversation as conversations
from vlm.engine.sessions import file, state
from vlm.engine.sessions.identity import MACHINE, MODEL, difference, identity_of
from vlm.engine.settings import MB
from vlm.errors import BadInput

if TYPE_CHECKING:
    from vlm.engine.engine import Engine
    from vlm.engine.intake import Cut
    from vlm.models.processor import Prompt

FRAMES_BYTES = 2048 * MB
"""Of decoded pictures and clips in a file, and all its texts."""
KINDS = (torch.float32, torch.bfloat16, torch.float16)


class About(Config):
    """What a file tells without being read whole."""

    turns: NonNegativeInt
    """Of the user."""
    media: NonNegativeInt
    """Pictures and clips."""
    tokens: NonNegativeInt
    """Of the conversation, image tokens among them."""
    image_tokens: NonNegativeInt
    read_tokens: NonNegativeInt
    """The first ones, whose keys and values are in the file: they are not read again."""


@dataclass(frozen=True)
class Packed:
    """A session that is ready to be written."""

    about: About
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @property
    def nbytes(self) -> int:
        """About those of the file."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def write(self, path: Path) -> None:
        """Raises `OSError` where it cannot be; then what was there is there."""
        file.write(path, self.tensors, self.metadata)


@dataclass(frozen=True)
class Session:
    """A session as it was read, of whatever model."""

    path: Path
    about: About
    said: Conversation
    numbers: list[int]
    """Of its pictures and clips, among those of the file."""
    identity: dict[str, str]
    model: str
    """By the name it had."""
    tensors: dict[str, Tensor]


class Sessions:
    """Of one engine, whose model has this name; from any thread."""

    def __init__(self, engine: Engine, model: str) -> None:
        self.engine, self.model = engine, model
        bounds = engine.settings
        self.most = bounds.prompts_bytes + bounds.pictures_bytes + FRAMES_BYTES + file.HEADER_BYTES
        """Bytes of a file that is read, or written."""
        self._threads = torch.get_num_threads()  # others, who embed, change it for a moment
        self._identity: dict[str, str] | None = None

    @property
    def identity(self) -> dict[str, str]:
        """Made when it is first needed: it takes all weights."""
        if self._identity is None:
            self._identity = identity_of(self.engine, self._threads)
        return self._identity

    def packed(self, said: Conversation, client: str = "") -> Packed:
        """A conversation whose pictures and clips are open, with what this client's requests had the engine read of it.

        Raises `BadInput` for one that cannot be a prompt, or is larger than a file may be.
        """
        prompt, cut = self._cut(said, client)
        keys = {id(item): key for item, key in zip(prompt.media, cut.keys, strict=True)}  # in an order of its own
        tensors, numbers = conversations.tensors_of(said, [keys[id(item)] for item in said.media])
        size = self.engine.settings.chunk
        # A longer conversation ends its last chunk elsewhere, unless it is full.
        whole = cut.stretches[:-1] if len(cut.parts[-1]) < size else cut.stretches
        taken = self.engine.prompts.found(whole)
        read = [(stretch.tokens, one) for stretch, one in zip(whole, taken, strict=False)]
        tensors |= state.tensors_of(read)
        for number, item in zip(numbers, said.media, strict=True):
            if (visual_MD := self.engine.pictures.known(keys[id(item)])) is not None:
                tensors[_visual(number)] = visual_MD
        about = About(
            turns=sum(message.role == "user" for message in said.messages), media=len(said.media),
            tokens=len(prompt.ids), image_tokens=sum(len(item.places) for item in cut.shown),
            read_tokens=taken[-1].end if taken else 0,
        )  # fmt: skip
        metadata = {"model": self.model, "identity": json.dumps(self.identity), "about": about.model_dump_json()}
        found = Packed(about, tensors, metadata)
        if found.nbytes > self.most - file.HEADER_BYTES:
            raise BadInput(f"expected a session of at most {self.most} bytes, got one of {found.nbytes}")
        return found

    def about(self, path: Path) -> About:
        """Raises as `opened`, as far as the beginning of a file says it."""
        return _about(file.about(path, self.most), str(path))

    def opened(self, path: Path) -> Session:
        """Raises `FileNotFoundError` where there is none, `BadInput` in one line for what is no session, or damaged."""
        metadata, tensors = file.read(path, self.most)
        where = str(path)
        said, numbers = conversations.conversation_of(tensors, where)
        strange = next((name for name in tensors if not _known(name, len(set(numbers)))), None)
        if strange is not None:
            raise BadInput(f"{where}: expected a session's tensors, got {strange[:80]!r} too")
        identity = _texts(metadata.get("identity", ""), where)
        return Session(path, _about(metadata, where), said, numbers, identity, metadata.get("model", ""), tensors)

    def refuse_other_model(self, session: Session) -> None:
        """Raises `BadInput` where a session is of another model: what was said to that is said to no other unasked."""
        if (found := difference(session.identity, self.identity, MODEL)) is not None:
            name = f"{session.model[:80]}, " if session.model != self.model else ""
            raise BadInput(f"{session.path}: expected a session of model {self.model}, got one of {name}{found}")

    def other_machine(self, session: Session) -> str | None:
        """Why what was read is not what this machine would read, to the bit; `None` where it is."""
        return difference(session.identity, self.identity, MACHINE)

    def restore(self, session: Session, client: str = "") -> None:
        """Let the engine remember it, as read by this client. Raises `BadInput` where it is of another model, of other
        kernels, or holds what cannot be; then nothing is changed."""
        self.refuse_other_model(session)
        where, engine = str(session.path), self.engine
        if (found := self.other_machine(session)) is not None:
            raise BadInput(f"{where}: was saved where products have other last digits: {found}")
        prompt, cut = self._cut(session.said, client)
        chunks = state.chunks_of(session.tensors, engine.cfg, engine.model.language.embedding.weight, where)
        if [tokens for tokens, _ in chunks] != [stretch.tokens for stretch in cut.stretches[: len(chunks)]]:
            raise BadInput(f"{where}: expected chunks of its conversation's tokens, got others")
        visual = self._visual(session, prompt, cut)
        read = cut.stretches[: len(chunks)]
        for stretch, (_, taken) in zip(read, chunks, strict=True):
            engine.prompts.keep(stretch, taken)
        engine.prompts.touch(read)
        engine.prompts.shrink(engine.settings.prompts_bytes)
        for key, visual_MD in visual.items():
            engine.pictures.keep(key, visual_MD)

    def _cut(self, said: Conversation, client: str) -> tuple[Prompt, Cut]:
        prompt = self.engine.processor.prompt(said.messages, said.media)
        return prompt, self.engine.intake.cut(prompt, client)

    def _visual(self, session: Session, prompt: Prompt, cut: Cut) -> dict[bytes, Tensor]:
        """By the key of each picture that has some."""
        found: dict[bytes, Tensor] = {}
        like = self.engine.model.language.embedding.weight
        numbers = {id(item): number for number, item in zip(session.numbers, session.said.media, strict=True)}
        for item, key, shown in zip(prompt.media, cut.keys, cut.shown, strict=True):
            number = numbers[id(item)]
            visual_MD, shape = session.tensors.get(_visual(number)), [len(shown.places), like.shape[1]]
            if visual_MD is None:
                continue
            if visual_MD.dtype not in KINDS or list(visual_MD.shape) != shape:
                got = f"{str(visual_MD.dtype).removeprefix('torch.')} {list(visual_MD.shape)}"
                raise BadInput(f"{session.path}: {_visual(number)}: expected floats {shape}, got {got}")
            found[key] = state.refuse_nan(visual_MD, _visual(number), str(session.path)).to(like.device)
        return found


def _visual(number: int) -> str:
    return f"media.{number}.visual"


def _known(name: str, media: int) -> bool:
    """Whether a session has a tensor of this name; those of chunks are looked at where they are restored."""
    kind, _, rest = name.partition(".")
    number, _, what = rest.partition(".")
    if kind == "media":
        return number.isascii() and number.isdecimal() and int(number[:9]) < media and what in ("frames", "visual")
    return kind == "chunks" or name == conversations.NAME


def _about(metadata: dict[str, str], where: str) -> About:
    try:
        return config.parse(About, json.loads(metadata.get("about", "")), where)
    except (ValueError, RecursionError):
        raise BadInput(f"{where}: about: not JSON") from None


def _texts(text: str, where: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise BadInput(f"{where}: identity: expected an object of texts")
    return found

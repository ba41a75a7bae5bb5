"""Every public method of every kind of model gives an answer, or says in one line what the model cannot do."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import pytest
from PIL import Image

from vlm.cli import main
from vlm.conversation.messages import read_messages
from vlm.errors import BadInput
from vlm.facade import Model
from vlm.heads.decisions import Choice, YesNo
from vlm.heads.writer import ChatOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from stand_in import FakeModel

KINDS = [*kinds.WRITERS, kinds.SERVER]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
OTHER = PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
SAID = [{"role": "user", "content": "Hello there"}]
CALLS: dict[str, Callable[[Model, Path], Any]] = {
    "answer": lambda model, _: model.answer([PICTURE], ["What?"], max_tokens=2),
    "budget": lambda model, _: model.budget([PICTURE]),
    "can": lambda model, _: sorted(model.can),
    "caption": lambda model, _: model.caption([PICTURE], max_tokens=2),
    "chat": lambda model, _: model.chat(SAID, max_tokens=2),
    "classify": lambda model, _: model.classify([PICTURE], ["cat", "dog"]),
    "compose": lambda model, _: model.compose(PICTURE, "a cat"),
    "count": lambda model, _: model.count(SAID),
    "count_tokens": lambda model, _: model.count_tokens(["a cat"]),
    "decide": lambda model, _: model.decide([PICTURE, SAID], [YesNo("Is it?"), Choice("Which?", ("a", "b"))]),
    "embed_images": lambda model, _: model.embed_images([PICTURE]),
    "embed_texts": lambda model, _: model.embed_texts(["a cat"]),
    "embed_videos": lambda model, _: model.embed_videos([PICTURE]),
    "expert_use": lambda model, _: model.expert_use([PICTURE]),
    "frame_tokens": lambda model, _: model.frame_tokens,
    "generate": lambda model, _: model.generate([[1, 2]], max_tokens=2),
    "logits": lambda model, _: model.logits([[1, 2]]),
    "match": lambda model, _: model.match([PICTURE], ["a cat"]),
    "model": lambda model, _: model.model,
    "moments": lambda model, _: model.moments("data/samples/city_at_night.mp4", ["a car"]),
    "processor": lambda model, _: model.processor,
    "replies": lambda model, _: model.replies([read_messages(SAID)], max_tokens=2),
    "sampling": lambda model, _: model.sampling(),
    "save": lambda model, folder: model.save(folder / "saved"),
    "sessions": lambda model, folder: model.sessions.save(folder / "talk", SAID),
    "text_notes": lambda model, _: model.text_notes(["a cat"]),
    "similarity_scale": lambda model, _: model.similarity_scale,
    "to": lambda model, _: model.to("cpu"),
    "weights_hash": lambda model, _: model.weights_hash(),
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Model]]:
    folder = tmp_path_factory.mktemp("kind")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLM_CACHE", str(folder / "cache"))
        yield request.param, kinds.load(request.param, folder / "model")


def test_every_public_name_is_tried() -> None:
    names = {name for name in dir(Model) if not name.startswith("_")}
    assert names == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_or_one_line(loaded: tuple[str, Model], name: str, tmp_path: Path) -> None:
    kind, model = loaded
    try:
        CALLS[name](model, tmp_path)
    except BadInput as error:
        line = str(error)
        assert "\n" not in line
        assert "model" in line or "server" in line or "http" in line, line
        return
    assert name in able(kind), f"{kind}: {name} gave an answer, which the table below does not know of"


TEXTS = {"chat", "count", "generate", "logits", "model", "processor", "replies", "save", "sessions"}
WRITES = TEXTS | {"answer", "budget", "caption", "decide", "match"}
EMBEDS = {"classify", "compose", "count_tokens", "embed_images", "embed_texts", "embed_videos", "moments", "text_notes"}
ALWAYS = {"can", "frame_tokens", "sampling", "to", "weights_hash"}


def able(kind: str) -> set[str]:
    """What a model of this kind must be able to do."""
    if kind in ("CLIP", "SigLIP 2", "open_clip"):
        return ALWAYS | EMBEDS | {"similarity_scale"}
    if kind == kinds.SERVER:
        return ALWAYS | EMBEDS - {"classify", "count_tokens"}
    if kind == "a language model":
        return ALWAYS | TEXTS
    mixtures = {"expert_use"} if kind in ("a card", "DeepSeek-VL2") else set()
    return ALWAYS | WRITES | mixtures | (EMBEDS | {"similarity_scale"} if kind == "a card" else set())


def test_what_it_can_it_does(loaded: tuple[str, Model], tmp_path: Path) -> None:
    kind, model = loaded
    for name in sorted(able(kind)):
        CALLS[name](model, tmp_path)


COMMANDS: dict[str, list[str]] = {
    "caption": ["caption", "PICTURE"],
    "ask": ["ask", "PICTURE", "What?"],
    "chat": ["chat", "Hello there", "--max-tokens", "2"],
    "match": ["match", "PICTURE", "a cat", "a dog"],
    "decide": ["decide", "PICTURE", "--yes-no", "Is it dark?"],
    "experts": ["experts", "PICTURE", "--to", "FOLDER/experts.png"],
    "embed": ["embed", "PICTURE", "--text", "a cat"],
    "classify": ["classify", "PICTURE", "--names", "cat,dog"],
    "export": ["export", "--to", "FOLDER/exported"],
}
ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "capabilities.md"


def test_the_table_of_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command on each kind of model: done, or exit code 2 and one line, never a traceback; `docs/capabilities.md`
    is what comes out (with VLM_WRITE_DOCS=1 it is written anew)."""
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    PICTURE.save(tmp_path / "picture.png")
    rows, reasons = [], []
    for kind in kinds.WRITERS:
        name = kinds.write(kind, tmp_path / kind.replace(" ", "-"))
        cells = []
        for command, words in COMMANDS.items():
            out = str(tmp_path / kind.replace(" ", "-") / "out")
            filled = [w.replace("PICTURE", str(tmp_path / "picture.png")).replace("FOLDER", out) for w in words]
            capsys.readouterr()
            code = main([*filled, "--model", name, "--offline"])
            err = capsys.readouterr().err
            assert code in (0, 2), f"{kind} {command}: {code} {err}"
            assert "Traceback" not in err
            if code == 2:
                reasons.append(next(line for line in err.splitlines() if "model" in line))
            cells.append("yes" if code == 0 else "no")
        rows.append([kind, *cells])
    table = "".join(f"| {' | '.join(row)} |\n" for row in [["model", *(f"`vlm {c}`" for c in COMMANDS)],
                                                           ["---"] * (len(COMMANDS) + 1), *rows])  # fmt: skip
    if os.environ.get("VLM_WRITE_DOCS"):
        before, mark, _ = TABLE.read_text(encoding="utf-8").partition("<!-- table -->\n")
        TABLE.write_text(before + mark + table, encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8").endswith("<!-- table -->\n" + table)
    said = ("expected one that", "no mixture layers", "cannot be saved")
    assert all(any(words in reason for words in said) for reason in reasons)


def test_what_a_model_cannot_do_is_said_once_for_many_inputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kinds.write("CLIP", tmp_path / "clip")
    for name in ("a.png", "b.png", "c.png"):
        PICTURE.save(tmp_path / name)
    assert main(["caption", *(str(tmp_path / name) for name in ("a.png", "b.png", "c.png")), "--model", folder]) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert [line for line in out.err.splitlines() if "cannot" in line] == [
        "vlm: model clip is a dual encoder: it cannot caption; expected one that writes, like nano"
    ]


def test_the_stand_in_of_the_commands_tests_has_no_more_than_the_real_thing() -> None:
    """Every public method of the stand-in is the model's, and takes no argument that the model's does not take."""
    for name, own in inspect.getmembers(FakeModel, inspect.isfunction):
        if name.startswith("_"):
            continue
        real = {*inspect.signature(getattr(Model, name)).parameters}
        if "**options: 'Unpack[ChatOptions]'" in str(inspect.signature(getattr(Model, name))):
            real |= {*ChatOptions.__annotations__}
        for argument in inspect.signature(own).parameters.values():
            positional = argument.kind in (argument.POSITIONAL_ONLY, argument.POSITIONAL_OR_KEYWORD)
            assert argument.name in real or positional, f"{name}({argument.name})"
        assert len(inspect.signature(own).parameters) <= len(real), name

"""`vlm caption`, `vlm ask`, `vlm embed`: shapes of their JSON, and inputs that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open
from stand_in import bad_files

from vlm.assets import root

CLIP = root() / "data" / "samples" / "temple_and_flower.mp4"


@pytest.fixture(autouse=True)
def _stub(model: Any) -> None:
    pass


def test_caption(vlm_command: Any, photos: Path) -> None:
    done = vlm_command("caption", photos / "red.png", "--json")
    assert done.json == {"results": [{"input": str(photos / "red.png"), "caption": "a picture of 20"}]}
    assert (done.code, done.complaints) == (0, [])
    assert vlm_command("caption", photos / "red.png").out == "a picture of 20\n"


def test_caption_takes_folders_and_clips(vlm_command: Any, photos: Path) -> None:
    done = vlm_command("caption", photos, CLIP, "--json")
    names = [Path(row["input"]).name for row in done.json["results"]]
    assert names == ["blue.png", "lime.png", "red.png", CLIP.name]
    assert done.json["results"][-1]["caption"] == "a clip of 4"


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        (("--frames", "6"), 6),
        (("--sampling", "rate:fps=2"), 8),
        (("--sampling", "rate:fps=2", "--frames", "3"), 3),
        (("--sampling", "adaptive:tokens=80"), 5),  # of nano's 16 tokens a frame
    ],
)
def test_which_frames_of_a_clip_are_seen(vlm_command: Any, options: tuple[str, ...], frames: int) -> None:
    assert vlm_command("caption", CLIP, *options).out == f"a clip of {frames}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--frames", "0"), "--frames"),
        (("--sampling", "scene"), "unknown sampling 'scene'; did you mean 'scenes'?"),
        (("--sampling", "rate:fps=0"), "sampling 'rate:fps=0'"),
        (("--sampling", "adaptive:tokens=9"), "9 tokens do not pay for one frame of 16"),
    ],
)
def test_a_sampling_that_cannot_be_is_one_line(vlm_command: Any, options: tuple[str, ...], message: str) -> None:
    done = vlm_command("ask", CLIP, "What is shown?", *options)
    assert (done.code, done.out) == (2, "")
    assert len(done.complaints) == 1
    assert message in done.err


def test_what_a_run_costs_is_said_before_it(vlm_command: Any, photos: Path) -> None:
    done = vlm_command("caption", photos, CLIP)
    first, clip = (line for line in done.err.splitlines())
    assert first == f"vlm: {photos / 'blue.png'}: 16 tokens; prompt 5; reply up to 10; 31 of 200"  # and all alike
    assert clip == f"vlm: {CLIP}: 4 x (16 tokens) = 64 tokens; prompt 5; reply up to 10; 79 of 200"
    assert "prompt 3;" in vlm_command("ask", photos / "red.png", "Is it red?").err


def test_what_is_too_long_is_left_out_before_the_model_runs(vlm_command: Any, photos: Path, model: Any) -> None:
    done = vlm_command("caption", CLIP, photos / "red.png", "--frames", "12", "--json")
    assert (done.code, [Path(row["input"]).name for row in done.json["results"]]) == (2, ["red.png"])
    words = (
        "192 visual tokens, 5 of the prompt and a reply of up to 10 are 207 tokens; the language model reads at most"
    )
    assert done.complaints == [f"vlm: {CLIP}: {words} 200"]
    asked = vlm_command("ask", CLIP, "What?", "--frames", "12")
    assert (asked.code, asked.out) == (2, "")
    assert asked.complaints == [f"vlm: {CLIP}: {words.replace('5 of', '1 of').replace('207', '203')} 200"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--merge", "spatial=2"), "merge 'spatial=2': key spatial"),
        (("--merge", "half"), "merge 'half': expected key=value,key=value, got 'half'"),
        (("--tiling", "by=contents"), "tiling 'by=contents': key by"),
        (("--tiling", "budget=9"), "expected by: content with a budget of 9 tokens"),
    ],
)
def test_options_that_cannot_be_are_one_line(vlm_command: Any, photos: Path, option: Any, message: str) -> None:
    done = vlm_command("caption", photos / "red.png", *option)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert message in done.err


def test_ask(vlm_command: Any, photos: Path) -> None:
    done = vlm_command("ask", photos / "red.png", "Is it red?", "--json")
    expected = {"input": str(photos / "red.png"), "question": "Is it red?", "answer": "yes to Is it red?"}
    assert done.json == {"results": [expected]}


def test_embed_prints_pictures_then_texts(vlm_command: Any, photos: Path) -> None:
    done = vlm_command("embed", photos / "red.png", "--text", "red", "--text", "blue", "--json")
    assert [row["input"] for row in done.json["results"]] == [str(photos / "red.png"), "red", "blue"]
    assert all(abs(sum(x * x for x in row["vector"]) - 1) < 1e-5 for row in done.json["results"])


def test_embed_writes_a_file(vlm_command: Any, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "v.safetensors"
    done = vlm_command("embed", photos, "--text", "red", "--to", target, "--json")
    assert done.json == {"written": str(target), "count": 4}
    with safe_open(target, "numpy") as file:
        assert file.get_tensor("vectors").shape == (4, 8)
        assert json.loads(file.metadata()["inputs"])[-1] == "red"


def test_a_batch_does_the_good_ones_and_reports_the_bad(vlm_command: Any, photos: Path, tmp_path: Path) -> None:
    bad = bad_files(tmp_path / "bad")
    done = vlm_command(
        "caption", photos / "red.png", *bad.values(), tmp_path / "none.jpg", photos / "blue.png", "--json"
    )
    assert done.code == 2
    assert [Path(row["input"]).name for row in done.json["results"]] == ["red.png", "blue.png"]
    skipped = done.json["skipped"]
    assert [Path(row["input"]).name for row in skipped] == [*bad, "none.jpg"]
    assert done.complaints == [f"vlm: {row['reason']}" for row in skipped]
    assert all(row["input"] in row["reason"] for row in skipped)


@pytest.mark.parametrize("name", ["truncated.jpg", "text.jpg", "empty.png", "no.mp4", "huge.png", "none.jpg"])
@pytest.mark.parametrize("command", ["caption", "ask", "embed"])
def test_one_bad_input_is_one_line(vlm_command: Any, tmp_path: Path, command: str, name: str) -> None:
    bad_files(tmp_path / "bad")
    path = tmp_path / "bad" / name
    options = {"caption": [], "ask": ["What?"], "embed": ["--to", tmp_path / "v.safetensors"]}[command]
    done = vlm_command(command, path, *options)
    assert (done.code, len(done.complaints)) == (2, 1)
    assert str(path) in done.err
    assert not (tmp_path / "v.safetensors").exists()


def test_unusual_pictures_are_fine(vlm_command: Any, tmp_path: Path) -> None:
    Image.new("CMYK", (9, 9)).save(tmp_path / "cmyk.jpg")
    Image.new("I;16", (9, 9)).save(tmp_path / "deep.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "tiny.png")
    frames = [Image.new("P", (9, 9), n) for n in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    done = vlm_command("caption", tmp_path, "--json")
    assert (done.code, len(done.json["results"])) == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "cat.jpg", "  "], "the question is empty"),
        (["caption", "cat.jpg", "--model", "nan"], "unknown model 'nan'; did you mean 'nano'?"),
        (["pull", "nanno"], "unknown model 'nanno'; did you mean 'nano'?"),
        (["embed"], "nothing to embed"),
        (["embed", "--text", " "], "text 1 is empty"),
        (["caption", "https://example.com/a.jpg", "--offline"], "the network is off"),
        (["train", "nano-word"], "did you mean 'nano-words'?"),
        (["train", "nano-words", "steps=none"], "key steps"),
        (["train", "nano-words", "stps=1"], "key stps"),
    ],
)
def test_what_the_user_gave_is_named(vlm_command: Any, arguments: list[str], message: str) -> None:
    done = vlm_command(*arguments)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert message in done.err


def test_a_folder_without_pictures(vlm_command: Any, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = vlm_command("caption", tmp_path / "none")
    assert (done.code, len(done.complaints)) == (2, 1)
    assert "got none of either" in done.err


def test_what_fails_inside_is_one_line_without_a_traceback(
    vlm_command: Any, photos: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLM_DEBUG", raising=False)
    monkeypatch.setattr(model, "caption", lambda media, **options: 1 / 0)
    done = vlm_command("caption", photos / "red.png", "--json")
    assert (done.code, done.out, len(done.complaints)) == (1, "", 1)
    monkeypatch.setenv("VLM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        vlm_command("caption", photos / "red.png")


def test_an_interrupt_is_130(vlm_command: Any, photos: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(media: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "caption", interrupted)
    assert vlm_command("caption", photos / "red.png").code == 130

"""`vlm eval --model http://host/v1`: what is asked of an OpenAI-compatible endpoint, and what its faults cost."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from chat_server import ROWS, ChatServer, color, options, pictures, words
from PIL import Image
from squares import COLORS, FakeModel, write_benchmark

from vlm.evaluation.endpoint.client import EndpointOptions
from vlm.evaluation.results import read_info
from vlm.evaluation.run import Options, evaluate

pytestmark = pytest.mark.usefixtures("at_once")


def test_the_figures_are_those_of_the_same_answers_given_directly(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", ROWS, kind="vqa", max_tokens=7)
    together = threading.Barrier(4)

    def four_at_once(body: dict[str, Any]) -> str:
        together.wait(20)
        return color(body)

    with ChatServer(four_at_once).running() as server:
        [there] = evaluate(server.url, [card], options(tmp_path, endpoint=EndpointOptions(4, prices=(2.0, 10.0))))
    [here] = evaluate(FakeModel(), [card], Options(str(tmp_path / "data")))  # type: ignore[arg-type]
    assert there.figures == here.figures
    assert there.model == "small"
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("small", 0, 7)
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "text"]
    assert server.most_under_way == 4
    assert there.usage is not None
    assert (there.usage.requests, there.usage.prompt_tokens, there.usage.completion_tokens) == (12, 120, 12)
    assert there.usage.cost == pytest.approx((120 * 2 + 12 * 10) / 1e6)
    info = read_info(tmp_path / "run")
    assert (info.endpoint, info.usage) == (server.url, there.usage)


def test_pictures_arrive_with_their_own_pixels(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", ROWS[:1], kind="vqa")
    with ChatServer(color).running() as server:
        evaluate(server.url, [card], options(tmp_path))
    sent, kept = pictures(server.bodies[0])[0], Image.open(tmp_path / "data/squares/0.png")
    assert (sent.size, sent.tobytes()) == (kept.size, kept.convert("RGB").tobytes())


def test_captions_and_choices(tmp_path: Path) -> None:
    rows = [
        {"color": c, "captions": [f"a {c} wall"], "question": "Which?", "options": list(COLORS), "answers": ["B"]}
        for c in COLORS
    ]
    choice = write_benchmark(tmp_path / "data", rows, kind="choice", name="chooses")
    caption = choice.replace("benchmark.yaml", "caption.yaml")
    Path(choice).rename(choice := choice.replace("benchmark.yaml", "choice.yaml"))
    Path(write_benchmark(tmp_path / "data", rows, kind="caption", name="says")).rename(caption)
    with ChatServer(lambda body: "B" if "Which?" in words(body) else f"a {color(body)} wall").running() as server:
        chosen, said = evaluate(server.url, [choice, caption], options(tmp_path))
    assert chosen.figures["accuracy"].value == 100
    assert said.figures["BLEU-1"].value == 1
    assert "A. red\nB. blue\nC. green" in words(server.bodies[0])
    assert {words(body) for body in server.bodies[3:]} == {"Describe the picture."}


def test_a_clip_is_its_frames_with_their_times(tmp_path: Path) -> None:
    home = tmp_path / "data" / "squares"
    card = write_benchmark(tmp_path / "data", ROWS[:1], kind="vqa")
    clip = Path(__file__).resolve().parents[2] / "data/samples/city_at_night.mp4"
    (home / "0.mp4").write_bytes(clip.read_bytes())
    line = {"video": "0.mp4", "question": "What moves?", "answers": ["cars"], "split": "test"}
    (home / "rows.jsonl").write_text(json.dumps(line) + "\n")
    with ChatServer(lambda body: "cars").running() as server:
        evaluate(server.url, [card], options(tmp_path))
    parts = server.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url"] * 4 + ["text"]
    times = [part["text"] for part in parts[:-1] if part["type"] == "text"]
    assert all(text.startswith("Frame at ") and text.endswith(" seconds:") for text in times)
    assert times == sorted(times, key=lambda text: float(text.split()[2]))
    assert parts[-1]["text"] == "What moves?"


def test_several_pictures_stand_where_the_question_names_them(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", ROWS[:3], kind="vqa")
    line = {"frames": ["0.png", "1.png", "2.png"], "answers": ["red"], "split": "test",
            "question": "Is <image 2> or <image 1> red?"}  # fmt: skip
    (tmp_path / "data/squares/rows.jsonl").write_text(json.dumps(line) + "\n")
    text = Path(tmp_path / "data/squares.yaml")
    text.write_text(text.read_text().replace("test: 3", "test: 1"))
    with ChatServer(lambda body: "red").running() as server:
        evaluate(server.url, [card], options(tmp_path))
    parts = server.bodies[0]["messages"][0]["content"]
    assert [part.get("text") for part in parts] == [None, "Is ", None, " or ", None, " red?"]
    assert [picture.width for picture in pictures(server.bodies[0])] == [22, 21, 20]

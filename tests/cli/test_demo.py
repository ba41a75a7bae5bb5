"""`vlm demo`, `vlm models`, `vlm pull`: with a stand-in model everywhere, with the real one where marked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm.assets import root
from vlm.cli.demo_sheet import WIDTH, font, wrap

VLM = Path(sys.executable).parent / "vlm"
SAMPLES = root() / "data" / "samples"


def test_the_demo_of_own_pictures(vlm_command: Any, model: Any, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    done = vlm_command("demo", "--images", photos, "--to", out, "--json")
    assert done.code == 0
    made = done.json
    assert (made["pictures"], made["clips"], made["searches"]) == (3, 0, 5)
    with Image.open(made["sheet"]) as sheet:
        assert sheet.width == WIDTH
    page = Path(made["page"]).read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") >= 3
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    results = json.loads(Path(made["results"]).read_text())
    assert [len(row["answers"]) for row in results["results"]] == [2, 2, 2]
    assert sorted(path.name for path in out.iterdir()) == [
        "contact_sheet.png",
        "index.html",
        "mine.txt",
        "results.json",
    ]


def test_the_demo_of_the_samples_shows_clips_with_times(
    vlm_command: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlm.cli import demo

    few = {path: q for path, q in demo.samples().items() if path.endswith(("cat.jpg", "lemurs.jpg", ".mp4"))}
    assert len(demo.samples()) >= 18
    monkeypatch.setattr(demo, "samples", lambda: few)
    made = vlm_command("demo", "--to", tmp_path / "out", "--json").json
    assert (made["pictures"], made["clips"]) == (2, 2)
    results = json.loads(Path(made["results"]).read_text())
    assert [len(row["times"]) for row in results["results"] if "times" in row] == [4, 4]
    assert "lemurs.jpg" not in [Path(row["path"]).name for row in results["searches"][-1]["results"]]


def test_what_a_model_says_cannot_break_the_page(
    vlm_command: Any, model: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "caption", lambda media: ["<script>alert(1)</script>" + "w" * 500 for _ in media])
    monkeypatch.setattr(model, "answer", lambda media, questions: ["" for _ in questions])
    done = vlm_command("demo", "--images", photos, "--to", tmp_path / "out")
    assert done.code == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "(no answer)" in page


def test_words_are_wrapped_to_the_column() -> None:
    lines = wrap([("one two three " * 30 + "w" * 200, "regular", "black")], 200, 17, most=3)
    assert len(lines) == 3
    for line in lines[:-1]:
        at, (word, kind, _) = line.words[-1]
        assert at + font(kind, 17).getlength(word) <= 200
    assert lines[-1].words[-1][1][0].endswith("…")


def test_models_lists_every_card(vlm_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path))
    (nano,) = [card for card in vlm_command("models", "--json").json["models"] if card["name"] == "nano"]
    assert set(nano) == {"name", "about", "licence", "parts", "from"}
    assert nano["parts"] == {"tower": False, "language": False, "text": False}
    assert "vlm pull nano" in " ".join(vlm_command("models").out.split())


def test_pull_offline_with_an_empty_cache_is_one_line(
    vlm_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path))
    done = vlm_command("pull", "nano", "--offline", "--json")
    assert (done.code, done.out, len(done.complaints)) == (1, "", 1)
    assert "run `vlm pull nano` online" in done.err


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VLM, *arguments], capture_output=True, text=True, timeout=600, env={**os.environ, **environment}
    )


@pytest.mark.process
@pytest.mark.weights
def test_the_real_model_captions_answers_and_searches(tmp_path: Path) -> None:
    done = run("caption", SAMPLES / "cat.jpg", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["results"]
    assert len(row["caption"].split()) > 2
    for line in done.stderr.splitlines():
        assert line.startswith("vlm: ")
    for name in ("cat.jpg", "koala.jpg", "rocket.jpg"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes((SAMPLES / name).read_bytes())
    assert json.loads(run("index", tmp_path / "photos", "--to", tmp_path / "i", "--json").stdout)["indexed"] == 3
    hits = json.loads(run("search", tmp_path / "i", SAMPLES / "cat.jpg", "--json", VLM_OFFLINE="1").stdout)["results"]
    assert Path(hits[0]["path"]).name == "cat.jpg"
    assert hits[0]["score"] == pytest.approx(1, abs=1e-3)

"""`vlm data`: a table becomes conversations, a file of them is checked, and both say what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

CLIP = Path(__file__).parents[2] / "data" / "samples" / "city_at_night.mp4"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for number in range(4):
        Image.new("RGB", (60, 40), (60 * number, 90, 40)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = ["0.png,dark", "1.png,brown", "2.png,red", f"{CLIP},a clip", "none.png,?"]
    path = tmp_path / "photos.csv"
    path.write_text("file,label\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_from_a_table_to_a_sheet(vlm_command: Any, table: Path, tmp_path: Path) -> None:
    to = tmp_path / "train.jsonl"
    made = vlm_command("data", "convert", table, "--image", "file", "--answer", "label", "--to", to, "--json")
    assert (made.code, made.json["conversations"], len(made.json["skipped"])) == (2, 4, 1)
    assert "none.png: no such file" in made.err
    sheet = tmp_path / "sheets" / "sheet.png"
    checked = vlm_command("data", "check", to, "--sheet", sheet, "--json")
    assert checked.code == 0
    assert {key: checked.json[key] for key in ("conversations", "replies", "pictures", "clips", "faulty")} == {
        "conversations": 4, "replies": 4, "pictures": 3, "clips": 1, "faulty": 0
    }  # fmt: skip
    with Image.open(sheet) as image:
        assert image.getpixel((64 + 200, 120 + 150)) == (0, 90, 40)  # the first picture, where it stands
    shown = vlm_command("data", "check", to)
    assert (shown.code, shown.out.split()[:2]) == (0, ["what", "number"])


def test_what_cannot_be_used_is_named_by_its_line(vlm_command: Any, table: Path, tmp_path: Path) -> None:
    to = tmp_path / "train.jsonl"
    vlm_command("data", "convert", table, "--image", "file", "--answer", "label", "--to", to)
    broken = {"messages": [
        {"role": "user", "content": [{"type": "image", "image": "broken.png"}]}, {"role": "assistant", "content": "?"}
    ]}  # fmt: skip
    with to.open("a") as file:
        file.write("{\n" + json.dumps(broken) + "\n")
    done = vlm_command("data", "check", to, "--json")
    assert done.code == 2
    assert (done.json["conversations"], done.json["faulty"]) == (4, 2)
    assert [fault["line"] for fault in done.json["faults"]] == [5, 6]
    assert "broken.png" in done.json["faults"][1]["reason"]
    told = vlm_command("data", "check", to)
    assert f"{to}:5: not JSON" in told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photos.csv", "--to", "x.jsonl"), "expected --image and --answer"),
        (("photos.csv", "--image", "file", "--answer", "label", "--to", "x.json"), "expected a file of .jsonl"),
        (("photos.csv", "--image", "file", "--answer", "kind", "--to", "x.jsonl"), "no key 'kind'; it has file, label"),
        (("nothing", "--to", "x.jsonl"), "no such file; expected one, or a data set as CARD:SPLIT"),
        (
            ("photos.csv", "--image", "file", "--answer", "label", "--where", "split", "--to", "x.jsonl"),
            "--where: expected COLUMN=VALUE, got 'split'",
        ),
        (
            ("photos.csv", "--image", "file", "--answer", "label", "--ask", "?", "--question", "q", "--to", "x.jsonl"),
            "--question, --ask: expected one of them",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(
    vlm_command: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = vlm_command("data", "convert", *arguments)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert message in done.err
    assert not (tmp_path / "x.jsonl").exists()


def test_a_card_is_converted(vlm_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny

    card = tiny.write_data(tmp_path / "data", pictures=8)
    done = vlm_command("data", "convert", f"{card}:train", "--data", tmp_path / "data", "--to", tmp_path / "x.jsonl")
    assert done.code == 0
    first = json.loads((tmp_path / "x.jsonl").read_text().splitlines()[0])
    assert first["messages"][0]["content"][1] == {"type": "text", "text": "Describe the picture."}


def test_tokens_as_a_model_reads_them(vlm_command: Any, table: Path, tmp_path: Path) -> None:
    import tiny

    to = tmp_path / "train.jsonl"
    vlm_command("data", "convert", table, "--image", "file", "--answer", "label", "--to", to)
    card = tiny.write_card(tmp_path / "model")
    done = vlm_command("data", "check", to, "--model", card, "--json")
    assert done.json["tokens"] > done.json["longest"] >= done.json["median"] > 0

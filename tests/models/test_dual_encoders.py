"""Published dual encoders as they are: the library's own vectors, and every command that needs a space."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dual
import numpy as np
import open_clip
import pytest
import tiny
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoTokenizer

import vlm
from vlm.cli import main
from vlm.errors import BadInput
from vlm.media.open import Media
from vlm.models.dual_encoders import identity

TEXTS = ["a photo of a cat .", "a red square that is on the wall and on the wall and on the wall ."]


def photographs() -> list[Image.Image]:
    return [Image.effect_noise((90 + 20 * i, 80), 60).convert("RGB") for i in range(3)]


@torch.no_grad()
@pytest.mark.parametrize("kind", dual.KINDS)
def test_transformers_vectors_are_the_librarys(tmp_path: Path, kind: str) -> None:
    theirs = dual.save_dual(tmp_path, kind)
    model = vlm.load(tmp_path)
    assert model.about == "a dual encoder"
    pictures = photographs()
    pixels = AutoImageProcessor.from_pretrained(tmp_path)(pictures, return_tensors="pt")
    image = F.normalize(theirs.get_image_features(**pixels).pooler_output, dim=-1)
    padding = True if kind == "clip" else "max_length"
    tokens = AutoTokenizer.from_pretrained(tmp_path)(
        TEXTS, padding=padding, max_length=12, truncation=True, return_tensors="pt"
    )
    text = F.normalize(theirs.get_text_features(**tokens).pooler_output, dim=-1)
    np.testing.assert_allclose(model.embed_images(pictures), image, atol=1e-5)
    np.testing.assert_allclose(model.embed_texts(TEXTS), text, atol=1e-5)
    assert model.similarity_scale == pytest.approx(theirs.logit_scale.exp().item())
    assert identity(tmp_path)[1] == text.shape[1]
    alone = AutoTokenizer.from_pretrained(tmp_path)
    assert model.count_tokens(TEXTS) == [min(12, len(alone(one)["input_ids"])) for one in TEXTS]


@torch.no_grad()
def test_open_clips_vectors_are_the_librarys(tmp_path: Path) -> None:
    theirs = dual.save_open_clip_dual(tmp_path)
    dual.save_dual(tmp_path, "clip")  # as many repositories have it: both libraries' files
    _, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    pictures = photographs()
    image = theirs.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
    text = theirs.encode_text(open_clip.get_tokenizer("ViT-B-32")(TEXTS), normalize=True)
    model = vlm.load(tmp_path)
    np.testing.assert_allclose(model.embed_images(pictures), image, atol=1e-5)
    np.testing.assert_allclose(model.embed_texts(TEXTS), text, atol=1e-5)
    assert identity(tmp_path)[1] == 24
    assert model.count_tokens(["a photo of a cat", "cat"]) == [7, 3]  # a token a word, the beginning and the end


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "small-clip"
    dual.save_dual(folder)
    return folder


def test_it_embeds_clips_and_writes_nothing(clip: Path) -> None:
    model, pictures = vlm.load(clip), photographs()
    frames = model.embed_images(pictures).mean(axis=0)
    video = model.embed_videos([Media(tuple(pictures), (0.0, 1.0, 2.0))])
    np.testing.assert_allclose(video[0], frames / np.linalg.norm(frames), atol=1e-6)
    assert model.embed_images([]).shape[0] == 0
    for refused in (
        lambda: model.caption(pictures),
        lambda: model.answer(pictures[:1], ["What?"]),
        lambda: model.match(pictures[:1], ["a cat"]),
        lambda: model.expert_use(pictures),
    ):
        with pytest.raises(BadInput, match=r"small-clip is a dual encoder: it cannot .*; expected one that writes"):
            refused()
    with pytest.raises(BadInput, match="text 1 is empty"):
        model.embed_texts([" "])


def test_in_bfloat16_vectors_are_near(clip: Path) -> None:
    """Of random weights and noise in eight numbers, so the bound is wide."""
    exact, near = vlm.load(clip), vlm.load(clip, dtype="bfloat16")
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (80, 90, 3), np.uint8)) for _ in range(3)]
    for one, other in (
        (exact.embed_images(pictures), near.embed_images(pictures)),
        (exact.embed_texts(TEXTS), near.embed_texts(TEXTS)),
    ):
        assert one.dtype == other.dtype == np.float32
        assert (one * other).sum(axis=1).min() > 0.95


def test_what_tells_a_space_changes_with_its_weights(clip: Path, tmp_path: Path) -> None:
    assert identity(clip)[0].startswith("small-clip-")
    other = tmp_path / "small-clip"
    model = dual.save_dual(other)
    assert identity(other) == identity(clip)
    with torch.no_grad():
        model.text_projection.weight += 1
    model.save_pretrained(other)
    assert identity(other) != identity(clip)
    (other / "model.safetensors").rename(other / "model.bin")
    with pytest.raises(BadInput, match=r"pickled weights can run code: refused|expected model\.safetensors"):
        vlm.load(other)


def test_a_missing_tensor_and_a_missing_tokenizer_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    dual.save_dual(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    gone = state.pop("text_projection.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"missing.*text_projection\.weight"):
        vlm.load(tmp_path)
    save_file({**state, "text_projection.weight": gone}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for path in tmp_path.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(BadInput, match="expected a tokenizer"):
        vlm.load(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_the_commands_take_its_folder(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    tiny.write_data(tmp_path / "data", pictures=8)
    photos = tmp_path / "data" / "squares"
    model = ["--model", clip]
    rows = run(capsys, "embed", photos / "0.png", "--text", "a red square", *model)["results"]
    np.testing.assert_allclose(rows[1]["vector"], vlm.load(clip).embed_texts(["a red square"])[0], atol=1e-6)
    assert run(capsys, "index", photos, "--to", tmp_path / "idx", *model)["indexed"] == 8
    hits = run(capsys, "search", tmp_path / "idx", photos / "3.png", "--top", "1", *model)["results"]
    assert Path(hits[0]["path"]).name == "3.png"
    assert run(capsys, "search", tmp_path / "idx", "a red square", *model)["results"][0]["score"] < 1
    chances = run(capsys, "classify", photos / "0.png", "--names", "red,blue", *model)["results"][0]["classes"]
    assert sum(c["probability"] for c in chances) == pytest.approx(1, abs=1e-5)

    squares = tmp_path / "data" / "squares.yaml"
    card = {"name": "squares-retrieval", "about": "squares", "dataset": str(squares), "split": "val"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**card, "kind": "retrieval"}))
    named = yaml.safe_load(squares.read_text()) | {"annotations": "classes.jsonl", "classes": list(tiny.COLORS)}
    lines = [
        {"image": f"{i}.png", "answers": [list(tiny.COLORS)[i % 4]], "split": "val" if i > 3 else "train"}
        for i in range(8)
    ]
    (photos / "classes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "data" / "named.yaml").write_text(yaml.safe_dump(named))
    prompts = ["a photo of a {label} square", "{label} on the wall"]
    zero_shot = {**card, "name": "squares-zs", "kind": "classification", "prompts": prompts}
    (tmp_path / "z.yaml").write_text(yaml.safe_dump(zero_shot | {"dataset": str(tmp_path / "data" / "named.yaml")}))
    tasks = f"{tmp_path / 'r.yaml'},{tmp_path / 'z.yaml'}"
    results = run(capsys, "eval", "--tasks", tasks, "--data", tmp_path / "data", *model)["results"]
    assert len(results) == 2

    # The card of kind classification and `classify` are one function.
    found = vlm.load(clip).classify([photos / f"{i}.png" for i in range(4, 8)], list(tiny.COLORS), templates=prompts)
    right = [chances[0].name == list(tiny.COLORS)[i % 4] for i, chances in zip(range(4, 8), found, strict=True)]
    assert results[1]["accuracy"] == pytest.approx(100 * sum(right) / 4)


def test_a_single_input_is_no_list(clip: Path) -> None:
    """A text is a sequence of texts in Python, and a path of paths."""
    model: Any = vlm.load(clip)
    picture = photographs()[0]
    for call, words in [
        (lambda: model.embed_texts("cat"), "expected a list of texts"),
        (lambda: model.classify([picture], "red,blue"), "expected a list of texts"),
        (lambda: model.embed_images("a.jpg"), "got a single str"),
        (lambda: model.embed_images(picture), "got a single Image"),
        (lambda: model.embed_images(np.zeros((4, 4, 3), np.uint8)), "got a single ndarray"),
        (lambda: model.embed_images([""]), "got an empty text"),
    ]:
        with pytest.raises(BadInput, match=words):
            call()
    assert model.embed_images(np.zeros((2, 4, 4, 3), np.uint8)).shape[0] == 2


def test_texts_that_are_cut_are_told(clip: Path) -> None:
    model = vlm.load(clip)
    with pytest.warns(UserWarning, match=r"tokens, of which the first 12 are read"):
        model.embed_texts(["a photo of a cat " * 9])
    assert model.text_notes(["a photo"]) == [[]]


@pytest.mark.parametrize("name", ["visual_projection.weight", "vision_model.post_layernorm.bias"])
def test_weights_that_are_no_numbers_are_refused(clip: Path, tmp_path: Path, name: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(clip, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors[name].view(-1)[-1] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=f"expected numbers in tensor {name}, got NaN"):
        vlm.load(broken)


def test_a_git_lfs_pointer_is_called_so(clip: Path, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
    for name in ("model.safetensors", "config.json"):
        shutil.copytree(clip, tmp_path / name)
        (tmp_path / name / name).write_text(pointer)
        with pytest.raises(BadInput, match=f"{name}.* git-lfs pointer"):
            vlm.load(tmp_path / name)

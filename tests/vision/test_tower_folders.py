"""What a checkpoint's folder says must be what is asked for and what is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folders
import pytest
import tiny
import torch
from folders import NAFLEX, OPEN_CLIP, TIMM, TRANSFORMERS
from safetensors.torch import load_file, save_file

from vlm.errors import BadInput, VlmError
from vlm.vision.tower import TowerConfig, activation_name
from vlm.vision.towers import load, load_into, read_config


def change(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; a dictionary is merged into the one there."""
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(content))


@pytest.fixture(params=["timm", "open_clip", "torchvision", "transformers"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of each library."""
    monkeypatch.setattr("vlm.vision.towers.torchvision._create", folders.small_vit)
    if request.param == "timm":
        folders.save_timm(tmp_path, *TIMM["cls"])
    elif request.param == "open_clip":
        folders.save_open_clip(tmp_path, OPEN_CLIP["openai"])
    elif request.param == "torchvision":
        folders.save_torchvision(tmp_path)
    else:
        folders.save_transformers(tmp_path, *TRANSFORMERS["siglip"])
    return tmp_path


OWN = {"timm": "gelu", "open_clip": "quick_gelu", "torchvision": "gelu", "transformers": "gelu_tanh"}


def test_the_activation_is_the_checkpoints(folder: Path) -> None:
    cfg = read_config(folder)
    assert cfg.activation == OWN[cfg.library]
    assert load(folder, activation=cfg.activation).cfg == cfg
    with pytest.raises(BadInput, match=f"key activation: expected relu, the checkpoint's is {cfg.activation}"):
        load(folder, activation="relu")


@pytest.mark.parametrize("changes", [{"mean": (0.1, 0.2, 0.3)}, {"interpolation": "nearest"}, {"width": 1}])
def test_a_card_that_is_not_the_checkpoints_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"key {next(iter(changes))}: expected"):
        load_into(read_config(folder).model_copy(update=changes), folder)


def test_a_config_comes_back_from_its_json(folder: Path) -> None:
    cfg = read_config(folder)
    assert TowerConfig.model_validate_json(cfg.model_dump_json()) == cfg


def test_a_missing_an_unexpected_and_a_misshapen_tensor_are_named(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    state = load_file(path)
    keys = [key for key in state if "mlp" in key and not key.startswith("text") and state[key].ndim == 2]
    state["visual.extra" if "open_clip" in path.name else "extra"] = torch.zeros(1)
    if "text_model.embeddings.position_embedding.weight" in state:
        state["vision_model.extra"] = state.pop("extra")
    del state[next(key for key in keys if key.startswith(keys[-1].split(".")[0]))]
    state[keys[-1]] = torch.zeros(1)
    save_file(state, path)
    with pytest.raises(BadInput, match=r"1 missing: .*1 unknown: .*extra.*; 1 of another shape"):
        load(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    path.rename(folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"expected model.safetensors, got pytorch_model.bin \(pickled"):
        load(folder)
    path.write_bytes(b"no safetensors")
    with pytest.raises(BadInput, match="not a safetensors file"):
        load(folder)


def test_shards_are_read_together(tmp_path: Path) -> None:
    theirs, _ = folders.save_transformers(tmp_path, *TRANSFORMERS["clip"])
    (tmp_path / "model.safetensors").unlink()
    theirs.save_pretrained(tmp_path, max_shard_size="20kB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    weight = load(tmp_path).vit.embeddings.patch_embedding.weight
    assert torch.equal(weight, theirs.vision_model.embeddings.patch_embedding.weight)


def test_a_folder_of_two_libraries_asks_which(tmp_path: Path) -> None:
    folders.save_timm(tmp_path, *TIMM["cls"])
    folders.save_open_clip(tmp_path, OPEN_CLIP["openai"])
    with pytest.raises(BadInput, match="got those of open_clip and timm: say library="):
        load(tmp_path)
    assert load(tmp_path, library="timm").cfg.library == "timm"
    assert load(tmp_path, library="open_clip").cfg.library == "open_clip"
    with pytest.raises(BadInput, match="expected the files of transformers, got those of open_clip and timm"):
        load(tmp_path, library="transformers")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model_type": "no_such_model"}', '{"model_type": "llama"}'])
def test_other_folders_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(BadInput, match="got none"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "CLIPImageProcessor"}')
    with pytest.raises(BadInput) as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value) or "vision model type" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"do_resize": False}, "key do_resize: expected True, got False"),
        ({"rescale_factor": 1.0}, "key rescale_factor: expected 1/255, got 1.0"),
        ({"crop_size": {"height": 64, "width": 32}}, "key crop_size: expected a square, got 64x32"),
        ({"size": {"shortest_edge": 64}, "do_center_crop": False}, "key size: expected a square"),
    ],
)
def test_preprocessing_that_is_not_ours_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folders.save_transformers(tmp_path, *TRANSFORMERS["clip"])
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(BadInput, match=words):
        load(tmp_path)


def test_a_checkpoint_without_preprocessing_is_refused(tmp_path: Path) -> None:
    folders.save_transformers(tmp_path, *TRANSFORMERS["clip"])
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(BadInput, match=r"preprocessor_config\.json: no such file"):
        load(tmp_path)


def test_unknown_architectures_and_options_are_refused(tmp_path: Path) -> None:
    folders.save_timm(tmp_path, *TIMM["cls"])
    change(tmp_path / "config.json", architecture="vit_of_nobody")
    with pytest.raises(BadInput, match="timm has no model of this name"):
        load(tmp_path)
    change(tmp_path / "config.json", architecture="test_vit", model_args={"colour": "red"})
    with pytest.raises(BadInput, match=r"key options: .*colour"):
        load(tmp_path)
    for library, words in [("open_clip", "unknown model of open_clip"), ("torchvision", "torchvision has no ViT"),
                           ("transformers", "unknown vision model type")]:  # fmt: skip
        with pytest.raises(BadInput, match=words):
            TowerConfig.model_validate({**tiny.TOWER.model_dump(), "library": library, "name": "nobody"}).build()


def test_a_budget_goes_with_a_native_tower(tmp_path: Path) -> None:
    folders.save_timm(tmp_path / "square", *TIMM["cls"])
    with pytest.raises(BadInput, match="key budget: this model of timm has no use for a budget"):
        load(tmp_path / "square", budget=20)
    folders.save_transformers(tmp_path / "native", *TRANSFORMERS["siglip2"])
    with pytest.raises(BadInput, match="key budget: this model of transformers needs a budget"):
        load(tmp_path / "native", budget=None)
    folders.save_timm(tmp_path / "both", *NAFLEX)
    assert load(tmp_path / "both", budget=None).preprocess(folders.photographs()).shape == (7, 3, 64, 64)
    with pytest.raises(ValueError, match="every picture has a grid of its own"):
        load(tmp_path / "both").cfg.grid  # noqa: B018


def test_a_name_that_is_no_folder_is_one_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folders.save_timm(tmp_path, *TIMM["cls"])
    asked: list[tuple[Any, ...]] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options["local_files_only"]))
        if name == "timm/broken":
            raise OSError("no route to\nhost")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert load("timm/test_vit", offline=True).cfg.name == "test_vit"
    assert asked == [("timm/test_vit", True)]
    with pytest.raises(VlmError, match="timm/broken: no route to host"):
        load("timm/broken")
    with pytest.raises(BadInput, match="expected a folder, or a repository"):
        load("no_such_folder")


def test_keys_that_say_nothing_leave_a_configs_json_as_it_was() -> None:
    keys = "library name image_size patch width activation mean std interpolation".split()
    assert list(json.loads(tiny.TOWER.model_dump_json())) == keys
    assert "layer" in json.loads(tiny.TOWER.model_copy(update={"layer": -2}).model_dump_json())


def test_activations_are_told_by_their_values() -> None:
    assert activation_name(torch.nn.GELU("tanh")) == "gelu_tanh"
    assert activation_name(torch.nn.Hardswish()) == "an unknown one (Hardswish)"

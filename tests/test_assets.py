"""Cards are found by name, or by the path of a file of the user's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vlm import assets
from vlm.errors import BadInput


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with two model cards and the package folder in it."""
    models = tmp_path / "configs" / "models"
    models.mkdir(parents=True)
    for name in ("nano.yaml", "base.yaml", "notes.txt"):
        (models / name).touch()
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "vlm")
    monkeypatch.setenv(assets.VARIABLE, "")
    return tmp_path


def test_this_installation_has_its_cards() -> None:
    assert "nano" in assets.cards("configs/models")


def test_cards_are_the_yaml_files_by_name(clone: Path) -> None:
    assert list(assets.cards("configs/models")) == ["base", "nano"]
    assert assets.cards("configs/none") == {}
    assert assets.find_card("configs/models", "nano", "model") == clone / "configs" / "models" / "nano.yaml"


def test_an_installed_wheel_carries_its_own(clone: Path) -> None:
    (clone / "vlm" / "_assets" / "configs" / "models").mkdir(parents=True)
    assert assets.root() == clone / "vlm" / "_assets"


def test_without_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "vlm")
    with pytest.raises(BadInput, match="has no configs/"):
        assets.root()


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_a_card_of_the_users_own(clone: Path, suffix: str) -> None:
    own = clone / f"own{suffix}"
    own.touch()
    assert assets.find_card("configs/models", str(own), "model") == own


def test_an_unknown_name_suggests_the_nearest(clone: Path) -> None:
    with pytest.raises(BadInput, match="unknown model 'nanp'; did you mean 'nano'"):
        assets.find_card("configs/models", "nanp", "model")
    with pytest.raises(BadInput, match=r"absent\.yaml: no such file; expected a model card"):
        assets.find_card("configs/models", str(clone / "absent.yaml"), "model")


def test_of_many_cards_a_few_are_named(clone: Path) -> None:
    for number in range(20):
        (clone / "configs" / "models" / f"other-{number}.yaml").touch()
    with pytest.raises(BadInput) as raised:
        assets.find_card("configs/models", "othr-3", "model")
    assert str(raised.value).endswith("? `vlm models` names all 22")
    assert str(raised.value).count("'other-") == 3
    with pytest.raises(BadInput, match=r"unknown model 'zzz'; `vlm models` names all 22$"):
        assets.find_card("configs/models", "zzz", "model")


@pytest.fixture
def own(clone: Path) -> Path:
    """A user's folder of cards, which is used."""
    folder = clone / "own"
    for card in ("models/mine.yaml", "data/photos.yml", "eval/notes.txt"):
        (folder / card).parent.mkdir(parents=True)
        (folder / card).touch()
    assets.use(folder)
    return folder


def test_a_folder_of_cards_of_the_users_own(clone: Path, own: Path) -> None:
    assert list(assets.cards("configs/models")) == ["base", "nano", "mine"]
    assert assets.find_card("configs/models", "mine", "model") == own / "models" / "mine.yaml"
    assert assets.find_card("data", "photos", "dataset") == own / "data" / "photos.yml"
    assert assets.cards("eval") == {}
    assert assets.origin(own / "models" / "mine.yaml") == str(own / "models" / "mine.yaml")
    assert assets.origin(clone / "configs" / "models" / "nano.yaml") == "vlm"
    with pytest.raises(BadInput, match=r"unknown dataset 'x'.*known: photos"):
        assets.find_card("data", "x", "dataset")


def test_a_folder_that_is_named_twice_is_one(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets.use(own / "models" / "..")
    monkeypatch.setenv(assets.VARIABLE, os.pathsep.join([str(own), "", f"{own}/"]))
    assert assets.own_folders() == [own]
    assert "mine" in assets.cards("configs/models")


def test_a_name_that_is_there_twice_names_both_files(clone: Path, own: Path) -> None:
    (own / "models" / "nano.yaml").touch()
    ours, theirs = clone / "configs" / "models" / "nano.yaml", own / "models" / "nano.yaml"
    with pytest.raises(BadInput) as caught:
        assets.find_card("configs/models", "mine", "model")
    assert str(caught.value) == f"two cards are called 'nano': {ours} and {theirs}; expected a name for each"


@pytest.mark.parametrize(("name", "got"), [("absent", "no such folder"), ("configs", "one with none of them")])
def test_a_folder_without_cards(clone: Path, monkeypatch: pytest.MonkeyPatch, name: str, got: str) -> None:
    (clone / "configs" / "models").rename(clone / "configs" / "other")
    expected = f"{name}: expected a folder of cards with models, data, eval or train in it, got {got}"
    with pytest.raises(BadInput, match=expected):
        assets.use(clone / name)
    monkeypatch.setenv(assets.VARIABLE, str(clone / name))
    with pytest.raises(BadInput, match=expected):
        assets.own_folders()

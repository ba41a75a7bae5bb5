"""Every benchmark card loads and finds in its data set's files what its kind needs."""

from __future__ import annotations

import string
import subprocess
import sys
from pathlib import Path

import originals
import pytest
import yaml

from vlm.assets import cards, root
from vlm.datasets.examples import Example
from vlm.datasets.examples import load_card as load_dataset
from vlm.errors import BadInput
from vlm.evaluation.card import BenchmarkCard, load_card
from vlm.evaluation.tasks import cards_of

FIELDS = {
    "retrieval": set(),
    "caption": set(),
    "vqa": {"question"},
    "choice": {"question", "options", "hint"},
    "classification": {"label"},
    "multilabel": {"label"},
    "probe": set(),
    "few_shot": set(),
    "dialogue": {"question"},
    "moments": set(),
    "rerank": set(),
}
"""What the prompts of each kind may ask for."""


def fields_of(prompt: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None}


@pytest.mark.parametrize("name", cards("eval"))
def test_every_card_loads_and_its_data_set_has_its_split(name: str) -> None:
    card = load_card(name)
    dataset = load_dataset(card.dataset)
    assert card.name == name
    assert "_" not in name
    assert card.about
    assert card.groups
    assert not set(card.groups) & set(cards("eval"))
    assert card.split in dataset.splits
    for prompt in card.prompts:
        assert fields_of(prompt) <= FIELDS[card.kind]
    if card.kind == "classification":
        assert len(set(dataset.classes)) >= 2
        assert card.prompts
        assert all("{label}" in prompt for prompt in card.prompts)
    if card.kind in ("vqa", "choice"):
        assert all("{question}" in prompt for prompt in card.prompts)
    for score in card.published:
        assert score.source


@pytest.mark.parametrize("name", cards("eval"))
def test_every_card_finds_what_its_kind_needs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    card = load_card(name)
    dataset = load_dataset(card.dataset)
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    if card.dataset in originals.WRITERS:
        originals.WRITERS[card.dataset](tmp_path / dataset.folder)
        dataset = dataset.model_copy(update={"splits": dict.fromkeys(dataset.splits)})
        examples = dataset.read(tmp_path, card.split)
    else:
        data = request.getfixturevalue("shared") / "data"
        if not (data / dataset.folder).is_dir():
            pytest.skip(f"{dataset.folder} is not on this machine")
        examples = dataset.read(data, card.split, limit=50)
    for example in examples:
        check(card, example, dataset.classes)


def check(card: BenchmarkCard, example: Example, classes: tuple[str, ...]) -> None:
    if card.kind in ("retrieval", "caption", "rerank"):
        assert example.captions
    if card.kind in ("vqa", "choice", "moments"):
        assert example.question
    if card.kind in ("vqa", "choice"):
        assert example.answers
    if card.kind == "choice":
        assert all(answer in string.ascii_uppercase[: len(example.options)] for answer in example.answers)
    if card.kind in ("classification", "probe", "few_shot"):
        assert example.answers[0] in classes
    if card.kind == "moments":
        assert example.video
        assert all(0 <= start < end <= example.meta["duration"] for start, end in example.meta["windows"])
    if card.category is not None:
        assert isinstance(example.meta[card.category], str | int)


def test_a_named_list_of_prompts() -> None:
    card = load_card("imagenet-1k")
    assert len(card.prompts) == 80
    assert "a photo of many {label}." in card.prompts


def test_an_unknown_list_of_prompts(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "{name: own, about: a, dataset: cifar10, split: test, kind: classification, prompts: imagenet-prompt}"
    )
    with pytest.raises(BadInput, match="unknown list of names 'imagenet-prompt'; did you mean 'imagenet-prompts'"):
        load_card(str(path))


def test_the_local_group_needs_nothing_else() -> None:
    local = {name for name in cards("eval") if "local" in load_card(name).groups}
    assert {"flickr8k-retrieval", "flickr8k-caption", "easy-vqa", "daquar"} <= local


OWN = {"name": "own", "about": "x", "dataset": "own_data.yaml", "split": "test", "kind": "vqa"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "../elsewhere"}, "key name: "),  # it becomes a folder of the results
        ({"name": ""}, "key name: "),
        ({"name": "own@2"}, "key name: "),
        ({"prompts": ["{"]}, "key prompts.0: .*not a template"),
        ({"kind": "choice", "judge": {}}, "judge: kind choice takes none; expected kind vqa or dialogue"),
        ({"kind": "retrieval", "in_context": {}}, "in_context: kind retrieval takes none"),
        ({"prompts": ["{question}", "{question.__class__}"]}, "key prompts.1: .*not a template"),
    ],
)
def test_a_card_with_a_fault_names_its_key(tmp_path: Path, change: dict[str, object], says: str) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(OWN | change))
    with pytest.raises(BadInput, match=rf"own\.yaml: .*{says}"):
        load_card(str(tmp_path / "own.yaml"))


def test_all_faults_of_all_cards_are_told_at_once(tmp_path: Path) -> None:
    first = OWN | {"dataset": "daquarr", "kind": "vqaa", "max_token": 3}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(first))
    second = OWN | {"name": "two", "dataset": "daquar", "split": "tset", "kind": "probe", "train_split": "no"}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(second))
    with pytest.raises(BadInput) as raised:
        cards_of(["daquar", str(tmp_path / "own.yaml"), str(tmp_path / "two.yaml"), str(tmp_path / "none.yaml")])
    line = str(raised.value)
    assert "\n" not in line
    assert f"{tmp_path / 'own.yaml'}: key kind: unknown kind of benchmark 'vqaa'; did you mean 'vqa'" in line
    assert "key max_token: Extra inputs are not permitted" in line
    assert "key dataset: unknown dataset 'daquarr'; did you mean 'daquar'" in line
    assert f"{tmp_path / 'two.yaml'}: key split: dataset daquar has no split 'tset'; it has " in line
    assert "key train_split: dataset daquar has no split 'no'" in line
    assert "none.yaml: no such file" in line


@pytest.mark.process
def test_the_faults_of_a_card_are_told_before_anything_slow_is_imported(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(OWN | {"dataset": "daquar", "kind": "vqaa"}))
    code = "import sys; from vlm.cli import main; code = main(sys.argv[1:])\n"
    code += "sys.exit(9 if 'torch' in sys.modules else code)"
    command = [sys.executable, "-c", code, "eval", "--tasks", str(tmp_path / "own.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def test_a_card_elsewhere_finds_the_data_set_card_beside_it(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(OWN))
    (tmp_path / "own_data.yaml").write_text((root() / "data/daquar.yaml").read_text())
    assert load_dataset(load_card(str(tmp_path / "own.yaml")).dataset).name == "daquar"


def test_a_card_nested_too_deep(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("[" * 5000)
    with pytest.raises(BadInput, match="nested too deep"):
        load_card(str(tmp_path / "own.yaml"))

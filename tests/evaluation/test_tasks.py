"""What `--tasks` and `--prompts` stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vlm.assets import cards
from vlm.errors import BadInput
from vlm.evaluation.card import load_card
from vlm.evaluation.tasks import cards_of, tasks_of


def own_card(path: Path, **changes: object) -> str:
    card = {"name": "own", "about": "x", "dataset": "daquar", "split": "test", "kind": "vqa", **changes}
    path.write_text(yaml.safe_dump(card))
    return str(path)


def test_a_group_stands_for_its_benchmarks() -> None:
    names = [card.name for card in cards_of(["flickr8k-caption", "caption", "flickr8k-caption"])]
    assert names[0] == "flickr8k-caption"
    assert len(names) == len(set(names)) > 2


@pytest.mark.parametrize(
    ("task", "near"),
    [("flickr8k-captoin", "'flickr8k-caption'"), ("captoin", "'caption'"), ("DAQUAR", ""), ("", "")],
)
def test_an_unknown_benchmark_names_the_nearest_and_where_all_are(task: str, near: str) -> None:
    with pytest.raises(BadInput) as raised:
        cards_of(["daquar", task])
    said = str(raised.value)
    assert said.startswith(f"unknown benchmark {task!r}; ")
    assert near in said
    assert "`vlm eval --list` names all" in said
    assert len(said) < 200
    assert sum(f"'{name}'" in said for name in cards("eval")) <= 3


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"own\.yaml: no such file; expected a benchmark card"):
        cards_of([str(tmp_path / "own.yaml")])


def test_two_cards_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    first = own_card(tmp_path / "a.yaml")
    assert len(cards_of([first, first])) == 1
    with pytest.raises(BadInput, match="two different benchmarks are called 'own'"):
        cards_of([first, own_card(tmp_path / "b.yaml", max_tokens=5)])


def test_every_prompt_is_a_task_of_its_own() -> None:
    card = load_card("easy-vqa")
    assert [(t.name, t.number, t.prompt) for t in tasks_of(card, "first")] == [("easy-vqa", 1, card.prompts[0])]
    names = ["easy-vqa", "easy-vqa@2", "easy-vqa@3"]
    assert [(t.name, t.prompt) for t in tasks_of(card, "all")] == list(zip(names, card.prompts, strict=True))


def test_an_ensemble_of_prompts_is_one_task() -> None:
    assert len(tasks_of(load_card("imagenet-1k"), "all")) == 1
    (task,) = tasks_of(load_card("flickr8k-retrieval"), "all")
    assert task.prompt is None

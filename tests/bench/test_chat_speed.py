"""A turn of the chat benchmark on a small model: both sides say the same, and what is not whole is an error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed (pip: vlm[serve])")
pytest.importorskip("openai", reason="transformers serve needs openai (pip: vlm[dev])")

import tiny

from vlm.bench.chat import Case, _bodies, _times, _whole, compare
from vlm.bench.chat import Turn as ChatTurn
from vlm.bench.chat_client import Answer
from vlm.bench.service import photographs_of
from vlm.errors import VlmError

sys.path.insert(0, str(Path(__file__).parents[1] / "families"))  # the random folders of the families' own tests
import random_smolvlm


@pytest.mark.process
def test_ours_and_transformers_say_the_same_of_a_folder(tmp_path: Path) -> None:
    random_smolvlm.write_folder(tmp_path / "model")
    found = compare(str(tmp_path / "model"), 1, lambda text: None, clients=(2,), least=1, tokens=4)
    assert [(row.server, row.case) for row in found.rows] == [
        (server, case)
        for case in ("2 clients, a picture each", "2 clients, one picture")
        for server in ("vlm serve", "transformers serve")
    ]
    assert (found.equal, found.replies) == (4, 4)
    assert all(row.tokens_per_second > 0 and row.first_p50_ms <= row.p99_ms for row in found.rows)
    assert all(row.cpu_ms_per_token >= 0 for row in found.rows)
    assert all(row.least <= row.times <= row.most for row in found.times)
    assert [row.questions for row in found.decisions] == [1, 8]


@pytest.mark.process
def test_a_card_is_beside_a_plain_loop(tmp_path: Path) -> None:
    card = str(tiny.write_card(tmp_path / "tiny"))
    found = compare(card, 1, lambda text: None, clients=(2,), least=1, tokens=4)
    assert {row.server for row in found.rows} == {"vlm serve", "a plain loop"}
    assert found.replies == 0


def test_a_reply_that_is_not_whole_is_an_error() -> None:
    whole = Answer(200, "a b", tokens=4, finish="length", done=True)
    assert _whole("x", whole, 4) is whole
    for broken in (Answer(503, "busy"), Answer(200, "a", tokens=3, finish="stop"), Answer(200, "a", tokens=4)):
        with pytest.raises(VlmError, match="x: expected a reply of 4 tokens"):
            _whole("x", broken, 4)


def test_every_request_has_a_picture_of_its_own_or_all_have_one() -> None:
    def shown(own: bool) -> int:
        bodies = _bodies(Case(3, own), 2, {}, photographs_of(10))
        assert [len(mine) for mine in bodies] == [2, 2, 2]
        questions = {body["messages"][0]["content"][1]["text"] for mine in bodies for body in mine}
        assert len(questions) == 6
        return len({body["messages"][0]["content"][0]["image_url"]["url"] for mine in bodies for body in mine})

    assert (shown(True), shown(False)) == (6, 1)


def test_what_is_told_is_the_median_of_the_rounds() -> None:
    def turn(tokens: int) -> ChatTurn:
        return ChatTurn(1.0, 2.0, [Answer(200, tokens=tokens)])

    found = _times(Case(1, True), [(turn(10), turn(5)), (turn(30), turn(5)), (turn(8), turn(8))])
    assert (found.times, found.least, found.most) == (2.0, 1.0, 6.0)

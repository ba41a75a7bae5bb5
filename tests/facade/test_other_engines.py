"""docs/other-engines.md: the language model of one that sees, written by itself for engines that read its family."""

from __future__ import annotations

import re
from pathlib import Path

import kinds
import pytest
import torch

import vlm
import vlm.language

PAGE = Path(__file__).resolve().parents[2] / "docs" / "other-engines.md"


def test_the_python_shown_writes_the_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    kinds.WRITERS["SmolVLM"](tmp_path / "model")
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    monkeypatch.chdir(tmp_path)
    exec(block.replace("HuggingFaceTB/SmolVLM-256M-Instruct", str(tmp_path / "model")), {})
    written = tmp_path / "smolvlm-language"
    assert (written / "tokenizer.json").read_bytes() == (tmp_path / "model" / "tokenizer.json").read_bytes()
    ids = torch.arange(3, 15)[None]
    with torch.inference_mode():
        expected = vlm.load(tmp_path / "model").model.language(ids)
        assert torch.equal(vlm.language.load(written)(ids), expected)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(written, dtype=torch.float32)(ids).logits
    torch.testing.assert_close(theirs, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.weights
@pytest.mark.parametrize("family", ["llama", "mixtral", "deepseek_v3"])
def test_nano_is_of_no_published_family(family: str, tmp_path: Path) -> None:
    with pytest.raises(vlm.errors.BadInput, match=rf"format {family} can") as refused:
        vlm.language.save(vlm.load("nano").model.language, tmp_path / "nano", format=family)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "nano").exists()

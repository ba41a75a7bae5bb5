"""METEOR and SPICE: the reference's figures where Java is there, a reason where something is not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vlm.errors import BadInput
from vlm.metrics import java
from vlm.metrics.caption import NotAvailable, Score, meteor, spice
from vlm.metrics.score import corpus

REFERENCES, HYPOTHESES = [["a dog runs", "the dog"], ["a cat"]], ["a dog", ""]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A `java` that is this script, and a pycocoevalcap that has every file."""

    def install(script: str) -> None:
        for name in (*java._METEOR_FILES, *java._SPICE_FILES):
            (tmp_path / "pycocoevalcap" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "pycocoevalcap" / name).touch()
        (tmp_path / "pycocoevalcap" / "__init__.py").touch()
        (tmp_path / "java").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "java").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.syspath_prepend(tmp_path)

    return install


@pytest.mark.parametrize("metric", [meteor, spice])
def test_without_java_it_says_so(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = metric(REFERENCES, HYPOTHESES)
    assert isinstance(found, NotAvailable)
    assert str(found).startswith("not available: ")
    assert "no `java` was found" in found.reason


@pytest.mark.parametrize("metric", [meteor, spice])
def test_without_pycocoevalcap_it_says_so(metric: Any, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("exit 0")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pycocoevalcap, which is not installed" in metric(REFERENCES, HYPOTHESES).reason


def test_without_its_files_it_names_them(fake: Any, tmp_path: Path) -> None:
    fake("exit 0")
    for name in java._CORENLP:
        (tmp_path / "pycocoevalcap" / name).unlink()
    assert "needs spice/lib/stanford-corenlp-3.6.0.jar, " in spice(REFERENCES, HYPOTHESES).reason  # type: ignore[union-attr]


@pytest.mark.parametrize("metric", [meteor, spice])
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exec sleep 60", "not done after 0 s"),
        ("echo some trace >&2; echo out of memory >&2; exit 1", "failed: out of memory"),
        ("exit 3", "failed: "),
        ("echo words; echo words; echo words; echo words; echo words", "failed: "),
    ],
)
def test_a_program_that_fails_is_a_reason(metric: Any, fake: Any, script: str, says: str) -> None:
    fake(script)
    found = metric(REFERENCES, HYPOTHESES, timeout=0.3 if "sleep" in script else 20)
    assert isinstance(found, NotAvailable)
    assert says in found.reason


def test_spice_reads_what_the_program_writes(fake: Any) -> None:
    rows = [{"image_id": 1, "scores": {"All": {"f": None}}}, {"image_id": 0, "scores": {"All": {"f": 0.5}}}]
    fake(f"""while [ "$1" != -out ]; do shift; done; echo '{json.dumps(rows)}' > "$2" """)
    assert spice(REFERENCES, HYPOTHESES) == Score(0.25, [0.5, 0.0])


def test_meteor_talks_line_by_line(fake: Any) -> None:
    fake('while read line; do case "$line" in SCORE*) echo 1 2;; EVAL*) echo 0.5; echo 0.25; echo 0.4;; esac; done')
    assert meteor(REFERENCES, HYPOTHESES) == Score(0.4, [0.5, 0.25])
    assert isinstance(meteor([["a"]] * 20_000, ["b"] * 20_000, timeout=0.2), NotAvailable)


@pytest.mark.parametrize("metric", [meteor, spice])
def test_bad_captions_are_an_error_all_the_same(metric: Any) -> None:
    with pytest.raises(BadInput, match="item 0 has no references"):
        metric([[]], ["a"])


def test_meteor_equals_the_reference(shared: Path) -> None:
    """One start of the program for all corpora: it takes longer than scoring them."""
    folder = java._found("METEOR", java._METEOR_FILES)
    if isinstance(folder, NotAvailable):
        pytest.skip(folder.reason)
    names = ("refs.json", "hyps_clean.json", "scores_clean.json", "edge.json")
    refs, hyps, scores, edge = (json.loads((shared / f"golden/metrics/caption_{name}").read_text()) for name in names)
    cases = [case for case in edge.values() if "corpus" in case] + [{"refs": refs, "hyps": hyps, **scores}]
    corpora = [corpus([c["refs"][i] for i in c["refs"]], [c["hyps"][i] for i in c["refs"]]) for c in cases]
    found: list[Score] = []

    def talk(process: Any) -> Score:
        found.extend(java._meteor(process, items) for items in corpora)
        return found[0]

    program = [*java._JAVA, "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
    assert isinstance(java._run("METEOR", program, folder / "meteor", 600, talk), Score)
    for case, score in zip(cases, found, strict=True):
        assert score.value == pytest.approx(case["corpus"]["METEOR"], abs=1e-9)
        assert score.per_item == pytest.approx([case["per_image"][i]["METEOR"] for i in case["refs"]], abs=1e-9)

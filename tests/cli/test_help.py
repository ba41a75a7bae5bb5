"""The frozen command line: a name or option that goes away breaks somebody's script."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer

from vlm.cli.app import COMMANDS, app

ALL = ["--cards", "--help", "--module"]
COMMON = [*ALL, "--json"]
SEES = ["--device", "--dtype", "--frames", "--model", "--offline", "--sampling"]
OPTIONS = {
    "pull": [*COMMON, "--offline"],
    "models": COMMON,
    "caption": [*COMMON, *SEES, "--beams", "--below", "--column", "--dense", "--merge", "--tiling", "--to", "--window"],
    "ask": [*COMMON, "--device", "--dtype", "--frames", "--merge", "--model", "--offline", "--sampling", "--tiling"],
    "chat": [*COMMON, *SEES, "--image", "--max-tokens", "--seed", "--session", "--system", "--temperature", "--top-p"],
    "match": [*COMMON, *SEES],
    "decide": [*COMMON, *SEES, "--choice", "--questions", "--score", "--temperatures", "--text", "--yes-no"],
    "embed": [
        *COMMON,
        "--below",
        "--column",
        "--device",
        "--dtype",
        "--engine",
        "--frames",
        "--model",
        "--offline",
        "--sampling",
        "--shard",
        "--text",
        "--to",
        "--width",
        "--workers",
    ],
    "classify": [*COMMON, *SEES, "--names", "--template"],
    "index": [
        *COMMON,
        "--below",
        "--column",
        "--device",
        "--dtype",
        "--duplicates",
        "--engine",
        "--model",
        "--offline",
        "--prune",
        "--threshold",
        "--to",
        "--width",
    ],
    "upload": [*COMMON, "--below", "--column", "--offline", "--patience", "--to"],
    "reindex": [
        *COMMON,
        "--collection",
        "--device",
        "--dtype",
        "--leave-out",
        "--media",
        "--model",
        "--offline",
    ],
    "search": [
        *COMMON,
        "--device",
        "--dtype",
        "--filter",
        "--hybrid",
        "--min-score",
        "--model",
        "--moments",
        "--offline",
        "--rerank",
        "--top",
        "--weight",
        "--with",
    ],
    "duplicates": [*COMMON, "--threshold"],
    "train": [*COMMON, "--offline"],
    "routing": [*COMMON, "--to"],
    "experts": [*COMMON, "--device", "--dtype", "--model", "--offline", "--to"],
    "export": [*COMMON, "--adapter", "--model", "--offline", "--shard-size", "--to"],
    "eval": [
        *COMMON,
        "--batch-size",
        "--cache",
        "--concurrency",
        "--data",
        "--decide",
        "--device",
        "--dtype",
        "--judge",
        "--judge-name",
        "--key-from",
        "--limit",
        "--list",
        "--model",
        "--model-name",
        "--offline",
        "--output",
        "--predictions",
        "--prices",
        "--prompts",
        "--resume",
        "--retries",
        "--tasks",
        "--temperatures",
        "--timeout",
    ],
    "calibrate": [*COMMON, "--data", "--device", "--dtype", "--limit", "--model", "--offline", "--split", "--to"],
    "compare": [*COMMON, "--flips"],
    "leaderboard": [*COMMON, "--format", "--to"],
    "overlap": [*COMMON, "--data", "--distance", "--limit", "--sheet", "--top", "--words"],
    "bench": [*COMMON, "--clients", "--draft", "--limit", "--minutes", "--model", "--rounds", "--to"],
    "plan": [*COMMON, "--measure", "--model", "--offline", "--to"],
    "demo": [*COMMON, "--images", "--model", "--offline", "--to"],
    "data": ["--help"],
    "serve": ["--help"],
    "score": ["--help"],
    "data check": [*COMMON, "--model", "--offline", "--sheet"],
    "data convert": [*COMMON, "--answer", "--ask", "--data", "--image", "--images", "--question", "--to", "--where"],
    "serve retrieval": [
        *ALL,
        "--access-log",
        "--audit-log",
        "--body-mb",
        "--cors",
        "--deadline",
        "--device",
        "--dtype",
        "--engine",
        "--host",
        "--index",
        "--keep-originals",
        "--keys",
        "--media",
        "--model",
        "--offline",
        "--open",
        "--page",
        "--port",
        "--root",
        "--urls",
        "--wait",
    ],
    "serve chat": [
        *ALL,
        "--access-log",
        "--body-mb",
        "--cors",
        "--deadline",
        "--device",
        "--draft",
        "--dtype",
        "--host",
        "--keys",
        "--max-tokens",
        "--media",
        "--max-sessions",
        "--memory-mb",
        "--model",
        "--offline",
        "--page",
        "--port",
        "--running",
        "--sessions",
        "--sessions-mb",
        "--temperatures",
        "--urls",
        "--waiting",
    ],
    "serve all": (
        "--access-log --audit-log --body-mb --cards --cors --deadline --device --draft --dtype --engine --help --host "
        "--index --keep-originals --keys --max-sessions --max-tokens --media --memory-mb --model --module --offline "
        "--open --page --port --root --running --sessions --sessions-mb --temperatures --urls --wait --waiting"
    ).split(),
    "score caption": [*COMMON, "--hypotheses", "--meteor", "--per-item", "--references", "--spice"],
    "score vqa": [*COMMON, "--answers", "--per-item", "--predictions", "--protocol"],
    "score retrieval": [*COMMON, "--similarity"],
    "score classification": [*COMMON, "--scores"],
    "score dense": [*COMMON, "--hypotheses", "--references", "--soda"],
}
ARGUMENTS = {
    "pull": ["NAME"],
    "models": [],
    "caption": ["PATH..."],
    "ask": ["PATH", "QUESTION"],
    "embed": ["[PATH]..."],
    "chat": ["[PICTURE]... [TEXT]"],
    "match": ["PATH", "TEXT..."],
    "decide": ["[PATH]..."],
    "classify": ["PATH..."],
    "index": ["SOURCE"],
    "upload": ["SOURCE"],
    "reindex": ["SERVICE_ROOT"],
    "search": ["INDEX", "QUERY|IMAGE"],
    "duplicates": ["INDEX"],
    "train": ["CONFIG", "[KEY=VALUE]..."],
    "routing": ["RUN..."],
    "experts": ["PATH..."],
    "export": ["[RUN]..."],
    "eval": [],
    "calibrate": ["BENCHMARK..."],
    "compare": ["RUN_A", "RUN_B", "[RUN]..."],
    "leaderboard": ["RUN..."],
    "overlap": ["TRAIN", "BENCHMARK"],
    "bench": ["SUITE"],
    "plan": ["CONFIG", "[KEY=VALUE]..."],
    "demo": [],
    "data": [],
    "data check": ["FILE"],
    "data convert": ["SOURCE"],
    "serve": [],
    "score": [],
    "serve retrieval": [],
    "serve chat": [],
    "serve all": [],
    "score caption": [],
    "score vqa": [],
    "score retrieval": [],
    "score classification": [],
    "score dense": [],
}


def commands() -> dict[str, Any]:
    """Every command by its name, those of a command that has its own after it."""
    top = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    inner = {f"{name} {sub}": c for name, group in top.items() for sub, c in getattr(group, "commands", {}).items()}
    return top | inner


def test_the_commands_are_these() -> None:
    assert list(commands()) == list(OPTIONS)
    assert [name for name in OPTIONS if " " not in name] == list(COMMANDS)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_options_are_these(name: str) -> None:
    command = commands()[name]
    context = typer.Context(command)
    options = [option for param in command.get_params(context) for option in param.opts if option.startswith("--")]
    assert sorted(options) == sorted(OPTIONS[name])
    arguments = [param.metavar for param in command.params if param.param_type_name == "argument"]
    assert arguments == ARGUMENTS[name]


@pytest.mark.parametrize("name", OPTIONS)
def test_help_shows_an_example_that_names_the_command(vlm_command: Any, name: str) -> None:
    done = vlm_command(*name.split(), "--help")
    assert done.code == 0
    example = done.out.split("Example:")[1]
    assert f"vlm {name}" in example


def test_without_a_command_the_help_is_shown(vlm_command: Any) -> None:
    done = vlm_command()
    assert (done.code, done.err) == (0, "")
    assert all(name in done.out for name in COMMANDS)


def test_version(vlm_command: Any) -> None:
    assert vlm_command("--version").out.startswith("vlm 0.")


@pytest.mark.process
def test_nothing_slow_is_imported_before_a_command_runs() -> None:
    code = "import sys, vlm.cli.app; print([m for m in ('torch', 'transformers', 'rich.progress') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["capton"], "No such command"),
        (["caption"], "Missing argument"),
        (["caption", "--colour", "x.jpg"], "No such option"),
        (["search", "i", "q", "--top", "0"], "--top"),
        (["search", "i", "q", "--top", "many"], "--top"),
        (["index", "photos"], "Missing option"),
        (["eval", "--tasks", ","], "at least one benchmark"),
    ],
)
def test_bad_usage_is_one_line(vlm_command: Any, arguments: list[str], message: str) -> None:
    done = vlm_command(*arguments)
    assert (done.code, done.out) == (2, "")
    assert len(done.complaints) == 1
    assert message in done.err

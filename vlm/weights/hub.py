"""Whole repositories of the hub, by name. What is fetched is configuration, vocabulary, chat template (filled in a
sandbox) and safetensors: nothing that could run.

They are kept in the hub's own cache (`$HF_HOME`), which other programs share. Cards pin every file by sha256 instead
(`vlm.weights.fetching`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from vlm.errors import VlmError
from vlm.weights.parts import network_is_off

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w.-]+)?")
PATTERNS = ["*.json", "*.safetensors", "chat_template.jinja"]


def is_repository(name: str) -> bool:
    """Whether this is the name of a repository, `owner/name` or `owner/name@revision`, and no path on this machine."""
    path = Path(name)
    return bool(REPOSITORY.fullmatch(name)) and path.suffix not in (".yaml", ".yml") and not path.exists()


def snapshot(name: str, *, offline: bool = False, report: Callable[[str], None] | None = None) -> Path:
    """The folder of a repository's files, fetched where they are not here yet.

    Raises `VlmError` in one line where the hub cannot be reached, has no such repository or may not be asked.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    local = offline or network_is_off()
    if report is not None and not local:
        report(f"{repository}: asking the hub")
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=PATTERNS,
            ignore_patterns=["*/*"],
            local_files_only=local,
        )
    except Exception as error:  # the HTTP library below, and so the class, is another from release to release
        if local:
            raise VlmError(f"hub {repository}: not on this machine, and the network is off") from None
        raise VlmError(f"hub {repository}: {' '.join(str(error).split())[:300]}") from None
    return Path(folder)

"""A run folder's reports: `report.md`, `report.json` and `report.html`."""

from __future__ import annotations

from pathlib import Path

from vlm.errors import BadInput
from vlm.evaluation.report.page import page
from vlm.evaluation.report.tables import as_json, markdown
from vlm.evaluation.results import read_run
from vlm.files import atomic_write

TOP = 160
"""Samples a task shown with their pictures: half of them the worst, half the best; a quarter more at random."""


def write_reports(run: Path, data: Path | None = None, *, top: int = TOP) -> list[Path]:
    """Write the three reports of the run in the folder `run`, each whole or not at all; returns their paths.

    `data` is the folder the samples' pictures lie in, where it is not the one the run was made with. The same run gives
    the same bytes. Raises `BadInput` where the folder holds no run, a file of it is damaged, or `top` is negative.
    """
    if top < 0:
        raise BadInput(f"report: top: expected 0 or more samples with pictures, got {top}")
    info, results = read_run(run)
    for task, result in results.items():
        if result.main not in result.figures:
            known = ", ".join(result.figures) or "none"
            raise BadInput(f"{run / task}: main: expected one of the figures ({known}), got {result.main!r}")
    tasks = [(result, run / task) for task, result in results.items()]
    found = list(results.values())
    html = page(info, tasks, data or Path(info.data), top)
    texts = {"md": markdown(info, found), "json": as_json(info, found), "html": html}
    written = []
    for suffix, text in texts.items():
        path = run / f"report.{suffix}"
        # What a model says may hold half a surrogate pair, which no file can.
        atomic_write(path, text.encode("utf-8", "replace"))
        written.append(path)
    return written

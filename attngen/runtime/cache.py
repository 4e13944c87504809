"""The folder of built modules: one file an entry, private, written whole or not at all.

An entry's name holds the SHA-256 of its text, and the text follows from the spec, the templates and the
options alone, so that a file is right if and only if it holds the text just rendered: it is compared before
it is imported, and mended where it differs.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from attngen.errors import BuildError

_log = logging.getLogger("attngen")


def entry(name: str, text: str) -> Path:
    """The file that holds this module text, written if it is missing or differs."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = folder() / f"{name}_{digest[:16]}.py"
    if _read(path) == text:
        _log.info("%s: taken from %s", name, path)
    else:
        write(path, text)
        _log.info("%s: built in %s", name, path)
    return path


def write(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it. Raises BuildError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BuildError(f"cannot write {path}: {error.strerror or error}") from error


def folder() -> Path:
    """The cache's folder: ``ATTNGEN_CACHE_DIR``, or the user's cache.

    Python code is imported from it, so it must be ours and writable by nobody else; where it is not, or
    cannot be written, a folder of this process is used instead, and said so.
    """
    wanted = os.environ.get("ATTNGEN_CACHE_DIR")
    path = Path(wanted) if wanted else user_cache_path("attngen", appauthor=False)
    problem = _problem(path)
    if problem is None:
        return path
    _log.warning("the cache folder %s %s: building into a temporary folder", path, problem)
    return _temporary()


def _problem(path: Path) -> str | None:
    """Why modules must not be imported from this folder, or None. Makes the folder if it is missing."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    if hasattr(os, "getuid"):
        if status.st_uid != os.getuid():
            return "belongs to somebody else"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "can be written by others"
    return None if os.access(path, os.R_OK | os.W_OK | os.X_OK) else "cannot be written"


@cache
def _temporary() -> Path:
    path = Path(tempfile.mkdtemp(prefix="attngen-"))
    atexit.register(_remove, path, os.getpid())
    return path


def _remove(path: Path, owner: int) -> None:
    """A forked child ends too, but its parent still needs the folder."""
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None

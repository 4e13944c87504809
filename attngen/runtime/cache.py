"""The folder of built modules: one file an entry, private, written whole or not at all.

An entry's name holds the SHA-256 of its text, and the text follows from the spec, the templates and the
options alone, so that a file is right if and only if it holds the text just rendered: it is compared before
it is imported, and mended where it differs.

The folder is trusted where it belongs to this user and nobody else can write to it. A folder that fails this,
or cannot be written, is never read from: the module is built into a folder of this process instead, and a
warning says so. A folder that passes but fails in the write (a full disk) is a BuildError.
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
from attngen.runtime import files

_log = logging.getLogger("attngen")


def entry(name: str, text: str) -> Path:
    """The file that holds this module text, written if it is missing or differs."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = folder() / f"{name}_{digest[:16]}.py"
    if _read(path) == text:
        _log.info("%s: taken from %s", name, path)
    else:
        files.sweep(path.parent)
        files.write(path, text)
        _log.info("%s: built in %s", name, path)
    return path


def folder() -> Path:
    """The cache's folder: ``ATTNGEN_CACHE_DIR``, or the user's cache.

    Python code is imported from it, so it must be ours and writable by nobody else; where it is not, or
    cannot be written, a folder of this process is used instead, and said so.
    """
    wanted = os.environ.get("ATTNGEN_CACHE_DIR")
    path = Path(wanted).absolute() if wanted else user_cache_path("attngen", appauthor=False)
    problem = _problem(path) if path.is_absolute() else "has no place: this user has no home folder"
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
    try:
        path = Path(tempfile.mkdtemp(prefix="attngen-"))
    except OSError as error:
        raise BuildError(
            f"cannot make a temporary folder: {error.strerror or error}",
            hint="set ATTNGEN_CACHE_DIR to a folder of your own",
        ) from error
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

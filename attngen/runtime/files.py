"""Files written whole or not at all: a reader sees the old text or the new one, whatever is killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from attngen.errors import BuildError

_PREFIX, _SUFFIX = ".attngen-", ".tmp"
_ABANDONED = 3600.0  # seconds: no write takes so long


def write(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, with the umask's permissions; missing folders are made.

    Raises BuildError where it cannot be written; what was there before is left then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        # Not tempfile's: its files are private whatever the umask is, which only os.umask() could tell, for
        # all threads at once.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise BuildError(f"cannot write {path}: {error.strerror or error}") from error


def sweep(folder: Path) -> None:
    """Remove what killed processes left of their writes in ``folder``. Nothing is ever read from it."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()

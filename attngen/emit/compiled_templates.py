"""The templates as Python bytecode, beside this package's own: compiling them takes half a second.

They lie where Python keeps the bytecode of this very module and under the same conditions: whoever can write
there can write the package itself; nothing is written where the folder is read-only or Python was told not to
write bytecode; what was made of another text, with other options or by another Python or Jinja, is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket, FileSystemBytecodeCache


class TemplateCache(FileSystemBytecodeCache):
    """``options`` is a text of those that the templates are compiled with.

    ``folder`` is made when it is first written to; None is Python's own for this module.
    """

    def __init__(self, options: str, folder: Path | None = None) -> None:
        own = Path(importlib.util.cache_from_source(__file__)).parent
        digest = hashlib.sha256(f"{jinja2.__version__} {options}".encode()).hexdigest()[:12]
        super().__init__(str(own if folder is None else folder), f"jinja-{digest}-%s.cache")

    def load_bytecode(self, bucket: Bucket) -> None:
        """Take it from the cache. A file that was cut, or that cannot be read, counts as none."""
        try:
            super().load_bytecode(bucket)
        except Exception:  # pickle and marshal have many
            bucket.reset()

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Write it, or leave it: a template that is compiled again is no failure."""
        if sys.dont_write_bytecode:
            return
        with contextlib.suppress(OSError):
            Path(self.directory).mkdir(parents=True, exist_ok=True)
            super().dump_bytecode(bucket)

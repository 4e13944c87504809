"""The folder of built modules: what is imported from it is what was rendered, whatever lay there."""

from __future__ import annotations

import importlib.util
import marshal
import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

import attngen
from attngen.errors import BuildError
from attngen.runtime import cache, files
from attngen.runtime.loader import load_module

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of this test's own."""
    path = tmp_path / "cache"
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(path))
    return path


def python(code: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def test_an_entry_is_one_private_file_with_the_text(folder: Path) -> None:
    path = cache.entry("small", "x = 1\n")
    assert path.parent == folder
    assert path.read_text() == "x = 1\n"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == [path]


def test_an_entry_is_taken_as_it_is_the_second_time(folder: Path) -> None:
    path = cache.entry("small", "x = 1\n")
    before = path.stat()
    assert cache.entry("small", "x = 1\n") == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_another_text_is_another_entry(folder: Path) -> None:
    one, two = cache.entry("small", "x = 1\n"), cache.entry("small", "x = 2\n")
    assert one != two
    assert (one.read_text(), two.read_text()) == ("x = 1\n", "x = 2\n")


@pytest.mark.parametrize("damage", [b"", b"x =", b"x = 2\n", b"\xff\xfe\x00", b"raise SystemExit\n"])
def test_a_damaged_entry_is_mended(folder: Path, damage: bytes) -> None:
    path = cache.entry("small", "x = 1\n")
    path.write_bytes(damage)
    assert cache.entry("small", "x = 1\n") == path
    assert path.read_bytes() == b"x = 1\n"


@pytest.mark.parametrize("damage", ["", "import os\nos._exit(3)\n"])
def test_a_damaged_entry_is_never_imported(folder: Path, damage: str) -> None:
    variant = attngen.compile("variant kept")
    variant.path.write_text(damage or variant.source[:900])
    assert finish(python("import attngen; print(attngen.compile('variant kept').path)")).strip() == str(
        variant.path
    )
    assert variant.path.read_text() == variant.source


def test_nothing_compiled_beside_an_entry_is_trusted(folder: Path) -> None:
    """A .pyc of the right time and size is what Python would run without reading the text."""
    path = cache.entry("small", "x = 1\n")
    status = path.stat()
    stale = Path(importlib.util.cache_from_source(str(path)))
    stale.parent.mkdir()
    numbers = (0, int(status.st_mtime), status.st_size)
    header = importlib.util.MAGIC_NUMBER + b"".join(n.to_bytes(4, "little") for n in numbers)
    for code in (marshal.dumps(compile("x = 2", str(path), "exec")), b"\x00rubbish"):
        stale.write_bytes(header + code)
        assert load_module(path).x == 1
        del sys.modules[f"attngen_built_{path.stem}"]


def test_a_write_that_fails_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.entry("small", "x = 1\n")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(BuildError, match=r"cannot write .*: No space left on device"):
        files.write(path, "x = 2\n")
    assert path.read_text() == "x = 1\n"
    assert list(folder.iterdir()) == [path]


def test_a_write_that_has_no_room_leaves_the_old_file(folder: Path) -> None:
    """A file that may not grow fails in the middle of the write, as on a full disk."""
    code = """
import resource
from attngen.errors import BuildError
from attngen.runtime import cache
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
small = cache.entry("small", "x = 1\\n")
for text in ("x = 2\\n" * 4096, "x = 1\\n" * 4096):
    try:
        cache.entry("large", text)
    except BuildError as error:
        print(error)
"""
    first, second = finish(python(code)).splitlines()
    for message in (first, second):
        assert message.startswith(f"cannot write {folder}/large_")
        assert message.endswith(": File too large")
    assert [p.read_text() for p in folder.iterdir()] == ["x = 1\n"]


STUCK = """
import os, time
from attngen.runtime import cache
def stuck(*_):
    print("written", flush=True)
    time.sleep(600)
os.replace = stuck
cache.entry("small", "x = 1\\n" * 1000)
"""


def test_a_build_killed_before_its_file_stands_leaves_the_next_one_alone(folder: Path) -> None:
    process = python(STUCK)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.kill()
    process.communicate()
    (left,) = folder.iterdir()
    assert (left.name.startswith(".attngen-"), left.suffix) == (True, ".tmp")
    path = cache.entry("small", "x = 1\n" * 1000)
    assert path.read_text() == "x = 1\n" * 1000
    assert left.exists()  # another process might be writing it: only old ones are removed
    os.utime(left, (0, 0))
    cache.entry("other", "x = 2\n")
    assert not left.exists()


def test_a_build_killed_at_any_moment_leaves_a_whole_file_or_none(folder: Path) -> None:
    code = """
from attngen.runtime import cache, files
text = "x = 1\\n" * 400000
print("starts", flush=True)
while True:
    files.write(cache.entry("large", text), text)
"""
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05):
        process = python(code)
        assert process.stdout is not None
        assert process.stdout.readline() == "starts\n"
        time.sleep(delay)
        process.kill()
        process.communicate()
        for path in folder.glob("*.py"):
            assert path.read_text() == "x = 1\n" * 400000
    assert list(folder.glob(".attngen-*.tmp")) + list(folder.glob("*.py"))  # some were at work


def test_processes_that_write_at_once_never_see_half_an_entry(folder: Path) -> None:
    code = """
from attngen.runtime import cache, files
text = "x = 1\\n" * 100000
for _ in range(10):
    path = cache.entry("large", text)
    assert path.read_text() == text
    files.write(path, text)
"""
    for process in [python(code) for _ in range(8)]:
        finish(process)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.slow
def test_processes_that_build_at_once_all_get_the_whole_module(folder: Path) -> None:
    code = """
import attngen, torch
v = attngen.compile("variant together\\nscore = tanh(score)\\nmask = causal")
q = torch.ones(1, 1, 3, 16)
print(v.path, v(q, q, q).sum().item())
"""
    found = [finish(process).strip() for process in [python(code) for _ in range(8)]]
    assert len(set(found)) == 1
    assert found[0].endswith(" 48.0")
    assert [p for p in folder.iterdir() if p.is_file()] == [Path(found[0].split()[0])]


# ---- Folders that cannot be trusted or used ---------------------------------------------------------------


def assert_builds_elsewhere(folder: Path, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    path = cache.entry("small", "x = 1\n")
    assert folder not in path.parents
    assert path.read_text() == "x = 1\n"
    assert not list(folder.glob("*.py")) if folder.is_dir() else True
    assert any(reason in line and str(folder) in line for line in caplog.messages), caplog.messages
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o722, 0o1777])
def test_a_folder_that_others_can_write_is_not_used(
    folder: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    folder.chmod(mode)
    assert_builds_elsewhere(folder, "can be written by others", caplog)


def test_a_folder_of_somebody_elses_is_not_used(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(mode=0o700)
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    assert_builds_elsewhere(folder, "belongs to somebody else", caplog)


def test_a_read_only_folder_is_not_used(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(mode=0o500)
    if os.getuid() == 0:  # whom no mode keeps out
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert_builds_elsewhere(folder, "cannot be written", caplog)


@pytest.mark.parametrize("inside", ["", "cache"])
def test_a_folder_that_cannot_be_made_is_not_used(
    inside: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("kept")
    folder = tmp_path / "file" / inside
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", str(folder))
    assert_builds_elsewhere(folder, "cannot be used", caplog)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_right_file_in_a_folder_that_others_can_write_is_not_used_either(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Others may change it between the look and the import."""
    path = cache.entry("small", "x = 1\n")
    folder.chmod(0o777)
    assert cache.entry("small", "x = 1\n").parent != path.parent


def test_a_link_to_a_folder_that_others_can_write_is_not_used(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs").chmod(0o777)
    folder.symlink_to(tmp_path / "theirs")
    assert_builds_elsewhere(folder, "can be written by others", caplog)


def test_an_entry_that_is_a_folder_is_refused_clearly(folder: Path) -> None:
    path = cache.entry("small", "x = 1\n")
    path.unlink()
    path.mkdir()
    with pytest.raises(BuildError, match=rf"cannot write {path}: Is a directory"):
        cache.entry("small", "x = 1\n")
    assert list(folder.iterdir()) == [path]


def test_a_relative_folder_is_one_place_whatever_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNGEN_CACHE_DIR", "cache")
    path = cache.entry("small", "x = 1\n")
    monkeypatch.chdir("/")
    assert path.read_text() == "x = 1\n"


def test_a_user_without_a_home_builds_into_a_temporary_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATTNGEN_CACHE_DIR", raising=False)
    monkeypatch.setattr(cache, "user_cache_path", lambda *_, **__: Path("~/.cache/attngen"))
    path = cache.entry("small", "x = 1\n")
    assert path.read_text() == "x = 1\n"
    assert list(tmp_path.iterdir()) == []
    assert "has no home folder" in caplog.text


def test_no_folder_at_all_is_a_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setattr(tempfile, "mkdtemp", none)
    monkeypatch.setattr(cache, "_temporary", cache._temporary.__wrapped__)
    with pytest.raises(BuildError, match=r"cannot make a temporary folder: No usable .*ATTNGEN_CACHE_DIR"):
        cache.entry("small", "x = 1\n")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_saved_file_has_the_permissions_of_any_new_file(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        files.write(tmp_path / "x.py", "x = 1\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.py").stat().st_mode) == mode


def test_a_variant_built_elsewhere_works_and_its_folder_goes_with_the_process(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    code = """
import attngen, torch
v = attngen.load("causal")
q = torch.ones(1, 1, 3, 16, requires_grad=True)
v(q, q, q).sum().backward()
print(v.path)
"""
    path = Path(finish(python(code)).strip())
    assert folder not in path.parents
    assert not path.exists()
    assert not path.parent.exists()


def test_a_variant_may_be_saved_over_another_file(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "kernels.py"
    for name in ("causal", "alibi"):
        variant = attngen.load(name)
        variant.save(target)
        assert target.read_text() == variant.source
    with pytest.raises(BuildError, match="cannot write"):
        attngen.load("causal").save(tmp_path / "new")
    q = torch.ones(1, 1, 3, 16)
    assert attngen.load("causal")(q, q, q).shape == q.shape

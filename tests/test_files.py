import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from squeezenet import files
from squeezenet.errors import DataError
from squeezenet.files import atomic_write, lock_folder


def write(path, data=b"new"):
    with atomic_write(path) as stream:
        stream.write(data)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def failing(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def test_file_is_written(tmp_path):
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names_in(tmp_path) == ["file"]


def test_file_is_replaced(old):
    write(old)
    assert old.read_bytes() == b"new"


def test_old_file_is_there_until_the_new_one_is_whole(old):
    with atomic_write(old) as stream:
        stream.write(b"half")
        stream.flush()
        assert old.read_bytes() == b"old"
    assert old.read_bytes() == b"half"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "disk full")])
def test_interrupted_writer_keeps_the_old_file_and_leaves_nothing(old, error):
    def interrupted():
        with atomic_write(old) as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert old.read_bytes() == b"old"
    assert names_in(old.parent) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_failure_of_the_system_keeps_the_old_file_and_leaves_nothing(old, monkeypatch, call):
    # A disk that is full is often found out only by fsync.
    fail = failing(OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, call)), fail)
    with pytest.raises(OSError, match="No space left"):
        write(old)
    assert old.read_bytes() == b"old"
    assert names_in(old.parent) == ["file"]


def test_full_disk_keeps_the_old_file(old):
    resource = pytest.importorskip("resource")
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            write(old, bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert old.read_bytes() == b"old"
    assert names_in(old.parent) == ["file"]


def test_data_are_on_disk_before_the_rename(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda path, to: (calls.append("replace"), replace(path, to))[1])
    write(tmp_path / "file")
    assert calls == ["fsync", "replace", "fsync"]  # the file, then the folder


def test_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    fsync = os.fsync
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: failing(OSError(errno.EINVAL, "no"))() if stat.S_ISDIR(os.fstat(fd).st_mode) else fsync(fd),
    )
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_new_file_follows_the_umask(tmp_path, umask, expected):
    before = os.umask(umask)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_permissions_of_the_old_file_stay(old, mode):
    old.chmod(mode)
    write(old)
    assert stat.S_IMODE(old.stat().st_mode) == mode


def test_link_is_followed(old, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(old)
    write(link)
    assert link.is_symlink()
    assert old.read_bytes() == b"new"


def test_dangling_link_gets_its_file(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    write(link)
    assert (tmp_path / "target").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_file_is_refused_before_anything_is_written(tmp_path, kind):
    path = tmp_path / "odd"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(FileExistsError, match="expected a file to write, got a folder or a device") as error:
        write(path)
    assert error.value.filename == str(path)
    assert names_in(tmp_path) == ["odd"]


def test_missing_folder_is_an_error_with_the_path_asked_for(tmp_path):
    path = tmp_path / "none" / "file"
    with pytest.raises(FileNotFoundError) as error:
        write(path)
    assert error.value.filename == str(path)


def test_longest_names_can_be_written(tmp_path):
    path = tmp_path / ("x" * 255)
    write(path)
    assert path.read_bytes() == b"new"


def test_relative_paths_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("file")
    assert names_in(tmp_path) == ["file"]


def test_two_writers_do_not_mix(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as one:
        one.write(b"one")
        with atomic_write(path) as other:
            other.write(b"other")
        assert path.read_bytes() == b"other"
    assert path.read_bytes() == b"one"
    assert names_in(tmp_path) == ["file"]


KILLED_WRITER = """
import os, signal, sys
from squeezenet.files import atomic_write
with atomic_write(sys.argv[1]) as stream:
    stream.write(b"half")
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    command = [sys.executable, "-c", KILLED_WRITER, tmp_path / "file"]
    assert subprocess.run([*command, "killed"], check=False).returncode == -signal.SIGKILL
    (left,) = names_in(tmp_path)
    other = subprocess.Popen([*command, "alive"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"writing\n"
    (tmp_path / ".notes.tmp").write_text("mine")
    with atomic_write(tmp_path / "file") as stream:  # the leftover is too young: it might be a writer that begins
        stream.write(b"whole")
    assert left in names_in(tmp_path)
    monkeypatch.setattr(files, "_LEFTOVER_AGE_S", 0)
    monkeypatch.setattr(files, "_swept", set())
    with atomic_write(tmp_path / "file") as stream:
        stream.write(b"whole")
    assert left not in names_in(tmp_path)
    assert len(names_in(tmp_path)) == 3
    other.communicate(b"")
    assert other.returncode == 0
    assert names_in(tmp_path) == [".notes.tmp", "file"]
    assert (tmp_path / "file").read_bytes() == b"half"


def test_full_disk_is_reported_with_the_file_s_name(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "file")


def test_lock_goes_with_its_process_whatever_children_it_has(tmp_path):
    pytest.importorskip("fcntl")
    with lock_folder(tmp_path, DataError):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        with pytest.raises(DataError, match="another process is using this folder"), lock_folder(tmp_path, DataError):
            pass
        assert (tmp_path / "lock").exists()
    try:
        with lock_folder(tmp_path, DataError):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert list(tmp_path.iterdir()) == []


def test_lock_harms_no_file_of_its_name(tmp_path):
    pytest.importorskip("fcntl")
    (tmp_path / "diary").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/lock").symlink_to(tmp_path / "diary")
    with lock_folder(tmp_path / "folder", DataError):
        pass
    assert (tmp_path / "diary").read_text() == "mine"
    (tmp_path / "lock").write_text("mine")
    with lock_folder(tmp_path, DataError):
        pass
    assert (tmp_path / "lock").read_text() == "mine"


def test_lock_that_cannot_be_made_is_one_error(tmp_path):
    pytest.importorskip("fcntl")
    (tmp_path / "lock").mkdir()
    with pytest.raises(DataError, match="lock: cannot be written"), lock_folder(tmp_path, DataError):
        pass

"""A full disk: a real one, of a few megabytes, on which every stage runs out of room."""

import ctypes
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from fresh import command, in_fresh_process, sentence
from published import copy
from small import CONFIG

import search

NEW_USERS, NEW_MOUNTS = 0x10000000, 0x00020000


def mount_small_disk(place: Path, size: int) -> None:
    """Mount a file system in memory that only this process and its children see."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(NEW_USERS | NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "no namespace of its own for this process")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    if libc.mount(b"none", bytes(place), b"tmpfs", 0, f"size={size}".encode()):
        raise OSError(ctypes.get_errno(), "no mount")


def can_mount(place: Path) -> str | None:
    try:
        mount_small_disk(place, 2**20)
    except OSError as error:
        return str(error)
    return None


@pytest.fixture
def disk(tmp_path, small_workspace):
    """Where a small disk can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    if why := in_fresh_process(can_mount, place):
        pytest.skip(f"NOT TESTED: a small disk can't be mounted here ({why})")
    return place


def leave(disk: Path, room: int | None) -> None:
    """Fill a disk but for so many bytes, or take out again what filled it."""
    (disk / "ballast").unlink(missing_ok=True)
    if room is not None:
        with (disk / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - room)


def go_through_all_stages(whole: Path, disk: Path, log: Path, rooms: list[int]) -> list[str]:
    """Run each stage on a full disk, then again with room; the sentences."""
    mount_small_disk(disk, 300 * 2**20)
    copy(whole, disk)
    home = ["--home", disk]
    for path in disk.glob("data/**/*.h5"):
        os.utime(path)
    (disk / "config.json").write_text(json.dumps(CONFIG))
    stages = (
        ["aggregate", disk / "data"],
        ["train", "--seed", 1, "--hold-out", 0.2, "--config", disk / "config.json"],
        ["embed"],
        ["publish"],
        ["evaluate"],
    )
    told = []
    for stage in stages:
        for room in rooms:
            leave(disk, room)
            code, said = command(*stage, *home, log=log)
            assert code == 1, said
            told.append(f"{stage[0]}: {sentence(said)}")
            assert command("similar", "P_00", *home, log=log)[0] == 0
        leave(disk, None)
        code, said = command(*stage, *home, log=log)
        assert code == 0, said
    return told


def search_with_little_room(workspace: Path, disk: Path, rooms: list[int]) -> list[int]:
    """Have a reader make its copy on a full disk: 0 where it answered, 1 where it was told."""
    mount_small_disk(disk, 200 * 2**20)
    os.environ["TMPDIR"] = tempfile.tempdir = str(disk)
    ends = []
    for room in rooms:
        leave(disk, room)
        child = os.fork()
        if child == 0:
            try:
                found = search.Searcher(search.connect(home=workspace)).similar("P_00", 5)
            except search.SearchError as error:
                os._exit(1 if str(disk) in str(error) else 2)
            os._exit(0 if len(found) == 5 else 3)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return ends


def test_a_searcher_on_a_full_disk_answers_or_is_told(small_workspace, disk, count):
    rooms = list(range(0, 160 * 2**20, 2 * 2**20))
    ends = in_fresh_process(search_with_little_room, small_workspace, disk, rooms)
    assert set(ends) == {0, 1}
    count("searches with too little room", "told", ends.count(1))
    count("searches with too little room", "answered", ends.count(0))


def test_every_stage_says_that_the_disk_is_full_and_goes_on_when_there_is_room(
    small_workspace, disk, tmp_path, count
):
    rooms = [0, 2**13]
    told = in_fresh_process(go_through_all_stages, small_workspace, disk, tmp_path / "log", rooms)
    for each in told:
        assert "room" in each, told
        assert str(disk) in each
    count("a full disk", "told, and gone on from", len(told))

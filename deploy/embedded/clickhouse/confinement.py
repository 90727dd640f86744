"""This process and everything it starts, held to one directory by the kernel (Landlock).

The engine can read files and connect to addresses when a statement asks for it. Whatever a
statement might still be talked into, the kernel then refuses: no file outside the engine's own
directory but the libraries it is made of, no program, no connection to anywhere. Secrets lie
outside: the users' file, other processes' environments.

Landlock holds for the thread that asks and all it starts, so this comes before the first thread.
Standard library only: glibc has no functions for these system calls.
"""

import ctypes
import mimetypes
import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# The same numbers on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
RULESET_VERSION_FLAG: Final = 1
PATH_BENEATH, NET_PORT = 1, 2
PR_SET_NO_NEW_PRIVS: Final = 38

# linux/landlock.h. A right that the kernel's version does not know must not be asked for.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REGULAR, MAKE_SYMLINK = (
    1 << 4,
    1 << 5,
    1 << 7,
    1 << 8,
    1 << 12,
)
FILE_RIGHTS_BY_VERSION: Final = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
REFER, TRUNCATE = FILE_RIGHTS_BY_VERSION[2], FILE_RIGHTS_BY_VERSION[3]
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
NET_VERSION: Final = 4
SCOPE_VERSION: Final = 6
ABSTRACT_UNIX_SOCKETS, SIGNALS = 1 << 0, 1 << 1

NOT_CONFINED: Final = (
    "This kernel has no Landlock, so only the program's own checks keep ClickHouse's statements"
    " away from files outside of its directory."
)

READING: Final = READ_FILE | READ_DIR
WORKING: Final = (
    READING
    | WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REGULAR
    | MAKE_SYMLINK
    | REFER
    | TRUNCATE
)
# Only these rights can be given for a single file.
OF_FILES: Final = READ_FILE | WRITE_FILE | TRUNCATE

# Libraries, time zones, what the engine asks of the machine. Nothing below /proc that belongs to a
# process: memory and environment are there.
READABLE: Final = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/locale",
    "/usr/share/zoneinfo",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    # aiohttp looks types of files up while it is imported.
    *mimetypes.knownfiles,
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys",
    "/sys",
    "/dev/urandom",
    "/dev/random",
)


# Of this process itself: how its address space is laid out, which the C library asks for. (Not
# `mem`, not `environ`.) A rule for a file of /proc lasts only as long as somebody holds the file.
OWN_PROCESS: Final = ("/proc/self/maps", "/proc/self/auxv")
_held: list[int] = []


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _NetPort(ctypes.Structure):
    _fields_ = (("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64))


def landlock_version() -> int:
    """What the kernel knows of Landlock; 0 when it cannot confine a process at all."""
    if platform.system() != "Linux":
        return 0
    return max(0, _system_call(CREATE_RULESET, None, 0, RULESET_VERSION_FLAG, raises=False))


def confine(directory: Path, port: int, packages: tuple[Path, ...]) -> bool:
    """Hold this thread, and all that it starts, to `directory` and the one port; False if it
    cannot be done here. `packages` are our own directories that are still to be imported from."""
    version = landlock_version()
    if version == 0:
        return False
    file_rights = sum(right for least, right in FILE_RIGHTS_BY_VERSION.items() if version >= least)
    ruleset = _create_ruleset(version, file_rights)
    try:
        _allow_path(ruleset, directory, WORKING & file_rights)
        _allow_path(ruleset, Path("/dev/null"), OF_FILES & file_rights)
        for path in (*map(Path, READABLE), *_python(), *packages):
            _allow_path(ruleset, path, READING & file_rights)
        for path in map(Path, OWN_PROCESS):
            _held.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
            _allow_path(ruleset, path, READ_FILE)
        if version >= NET_VERSION:
            rule = _NetPort(BIND_TCP, port)
            _system_call(ADD_RULE, ruleset, NET_PORT, ctypes.byref(rule), 0)
        # The kernel asks for this promise of whoever is not its administrator.
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _system_call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return True


def _create_ruleset(version: int, file_rights: int) -> int:
    attributes = _RulesetAttributes(file_rights)
    size = ctypes.sizeof(ctypes.c_uint64)
    if version >= NET_VERSION:
        attributes.handled_access_net = BIND_TCP | CONNECT_TCP
        size += ctypes.sizeof(ctypes.c_uint64)
    if version >= SCOPE_VERSION:
        attributes.scoped = ABSTRACT_UNIX_SOCKETS | SIGNALS
        size += ctypes.sizeof(ctypes.c_uint64)
    return _system_call(CREATE_RULESET, ctypes.byref(attributes), size, 0)


def _allow_path(ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rule = _PathBeneath(rights if path.is_dir() else rights & OF_FILES, opened)
        _system_call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(opened)


def _python() -> Iterator[Path]:
    """Where this interpreter's own modules and the installed packages are."""
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield Path(sysconfig.get_path(name)).resolve()


def _system_call(number: int, *arguments: object, raises: bool = True) -> int:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    outcome = int(call(ctypes.c_long(number), *wide))
    if outcome < 0 and raises:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return outcome

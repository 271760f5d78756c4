"""Confine this process by the kernel (Landlock): its own folder and its programs, no other file, no call outwards.

What a query of the embedded ClickHouse could be talked into reading is then not there to be read.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_SET_NO_NEW_PRIVS = 38
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_CONNECT_TCP = 1 << 1

_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_A_FILE = _EXECUTE | _READ_FILE | 1 << 1 | 1 << 14 | 1 << 15
# Rights the kernel knows about, by version of its interface: 13 at first, then refer, truncate, ioctl.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_ALL_RIGHTS = 16

_PROGRAMS = (sys.prefix, sys.base_prefix, "/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/localtime")
_SYSTEM = ("/proc", "/sys", "/dev/null", "/dev/urandom", "/dev/random", "/etc/ld.so.cache", "/etc/hosts")


def confine(folder: Path) -> bool:
    """Leave this thread, and all it starts from now on, `folder` alone to write; False where the kernel can't.

    Programs and libraries stay readable. Outgoing TCP is refused too where the kernel knows how (from 6.7 on).
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if version < 1:
        return False
    rights = (1 << _RIGHTS.get(version, _ALL_RIGHTS)) - 1
    attributes = struct.pack("=QQ", rights, _CONNECT_TCP) if version >= 4 else struct.pack("=Q", rights)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    try:
        code = Path(__file__).resolve().parents[2]
        readable = [*_PROGRAMS, *_SYSTEM, *(code / package for package in ("pipelines", "schemas"))]
        _allow(libc, ruleset, [folder], rights)
        _allow(libc, ruleset, readable, _READ)
        _allow(libc, ruleset, ["/dev/null"], _READ_FILE | 1 << 1)
        libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, paths: Iterable[str | Path], rights: int) -> None:
    for path in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            given = rights if os.path.isdir(path) else rights & _OF_A_FILE
            rule = struct.pack("=Qi", given, descriptor)
            if libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(path))
        finally:
            os.close(descriptor)

"""Walls of the Linux kernel around a process that runs an answer, which nothing inside it can take down again.

Landlock (Linux 5.13) keeps it to its folder and to what Python itself reads; a seccomp filter refuses system calls
that reach the network or other processes. Neither needs privileges. Where the kernel, or a container's own filter, has
none of them, ``confine`` puts up what there is. Standard library only: see answer_process.py.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # on all machines
_LANDLOCK_VERSION = 1
_READ_FILE, _READ_DIR, _WRITE_FILE, _TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights on files a version of Landlock knows; later ones as many as 5."""
_BENEATH = 1
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_CLOCKS = ("/usr/share/zoneinfo", "/etc/localtime", "/dev/urandom")

_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _FAIL_WITH, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD = 0x10000
_X32 = 0x40000000
_CLONE3 = 435
_REFUSED_EVERYWHERE = (424, 425, 434)  # pidfd_send_signal, io_uring_setup, pidfd_open
_MACHINES = {
    # machine: (its number, clone, the others). Network: socket. Programs and processes: fork, vfork, execve, execveat,
    # unshare, setns. Other processes: kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, ptrace, setpriority,
    # process_vm_readv and writev, prlimit64. The kernel: mount, bpf, perf_event_open, userfaultfd, add_key,
    # request_key, keyctl. What would outlive the process: shmget, semget, msgget.
    "x86_64": (
        0xC000003E, 56,
        (41, 57, 58, 59, 322, 272, 308, 62, 200, 234, 129, 297, 101, 141, 310, 311, 302, 165, 321, 298, 323, 248, 249,
         250, 29, 64, 68),
    ),
    "aarch64": (
        0xC00000B7, 220,
        (198, 221, 281, 97, 268, 129, 130, 131, 138, 240, 117, 140, 270, 271, 261, 40, 280, 241, 282, 217, 218, 219,
         194, 190, 186),
    ),
}  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def confine(folder: str) -> None:
    """From here on this process changes files in ``folder`` only, reads what Python needs, and is alone."""
    if sys.platform != "linux":
        return
    kernel = ctypes.CDLL(None, use_errno=True)
    if kernel.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
        _restrict_files(kernel, folder)
        _restrict_calls(kernel)


def _restrict_files(kernel: ctypes.CDLL, folder: str) -> None:
    version = kernel.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return
    everything = (1 << _RIGHTS.get(version, _RIGHTS[5])) - 1
    handled = struct.pack("Q", everything)
    rules = kernel.syscall(_LANDLOCK_CREATE, handled, len(handled), 0)
    read = _READ_FILE | _READ_DIR
    allowed = {folder: everything, os.devnull: _READ_FILE | _WRITE_FILE | _TRUNCATE & everything}
    allowed |= dict.fromkeys((sys.prefix, sys.base_prefix, *_LIBRARIES, *_CLOCKS), read)
    for path, rights in allowed.items():
        if os.path.exists(path):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rights = rights if os.path.isdir(path) else rights & ~_READ_DIR
            rule = struct.pack("=Qi", rights, place)
            kernel.syscall(_LANDLOCK_ADD, rules, _BENEATH, rule, 0)
            os.close(place)
    kernel.syscall(_LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def _restrict_calls(kernel: ctypes.CDLL) -> None:
    if platform.machine() not in _MACHINES:
        return
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _filter(*_MACHINES[platform.machine()]))
    buffer = ctypes.create_string_buffer(code)
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    kernel.prctl(_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program), 0, 0)


def _filter(machine: int, clone: int, refused: Iterable[int]) -> list[tuple[int, int, int, int]]:
    """A program of the kernel's packet filter: (operation, skip if true, skip if false, value).

    Threads may be made, processes not. clone3 is said not to exist, for then the C library makes threads with clone.
    """
    fail = (_RETURN, 0, 0, _FAIL_WITH | errno.EPERM)
    program = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, machine), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    program += [(_AT_LEAST, 0, 1, _X32), fail]
    for number in (*refused, *_REFUSED_EVERYWHERE):
        program += [(_EQUAL, 0, 1, number), fail]
    program += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _FAIL_WITH | errno.ENOSYS)]
    program += [(_EQUAL, 0, 3, clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_HAS_BITS, 1, 0, _CLONE_THREAD), fail]
    return [*program, (_RETURN, 0, 0, _ALLOW)]

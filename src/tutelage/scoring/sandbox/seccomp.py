"""The kernel's filter on system calls, in force for a process and all that it becomes.

The filter is a program of the kernel's packet filter: each instruction is a code, two jumps and a number (see
seccomp(2)). What is refused gives an error, so that a program meets it as one; a foreign way of calling ends it.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
_THREAD = 0x00010000
"""The flag of `clone` with which it makes a thread, not a process."""

# Numbers of the calls on x86-64 and on 64-bit ARM; None where there is no such call.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "socket": (41, 198),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "personality": (135, 92),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class NoFilter(Exception):
    """The filter cannot be made or is not in force."""


def install() -> None:
    """From here on this process makes none of these calls, no process of its own, and gains no rights.

    Raises:
        NoFilter: the kernel or the machine has no such filter.
    """
    if platform.machine() not in _MACHINES:
        raise NoFilter(f"no table of system calls for {platform.machine()}")
    program = filter_for(platform.machine())
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0):
        raise NoFilter("PR_SET_NO_NEW_PRIVS failed")
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    if libc.prctl(22, 2, ctypes.c_char_p(header), 0, 0):
        raise NoFilter(f"PR_SET_SECCOMP failed: {errno.errorcode.get(ctypes.get_errno())}")
    if libc.prctl(21, 0, 0, 0, 0) != 2:
        raise NoFilter("the filter is not in force")


def filter_for(machine: str) -> bytes:
    """The filter's instructions for a machine."""
    column, architecture = _MACHINES[machine]
    refused = [number for numbers in _CALLS.values() if (number := numbers[column]) is not None]
    code = [
        _step(_LOAD, 0, 0, _MACHINE),
        _step(_EQUAL, 1, 0, architecture),
        _step(_RETURN, 0, 0, _KILL),
        _step(_LOAD, 0, 0, _NUMBER),
        # On x86-64 numbers from 2^30 on are another way to call, with numbers of its own.
        _step(_AT_LEAST, 0, 1, 0x40000000),
        _step(_RETURN, 0, 0, _KILL),
    ]
    for number in refused:
        code += [_step(_EQUAL, 0, 1, number), _step(_RETURN, 0, 0, _ERROR | errno.EPERM)]
    code += [
        # The C library tries clone3, whose flags cannot be seen here, and then clone.
        _step(_EQUAL, 0, 1, _CLONE3[column]),
        _step(_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        _step(_EQUAL, 0, 3, _CLONE[column]),
        _step(_LOAD, 0, 0, _FIRST_ARGUMENT),
        _step(_ANY_BIT, 1, 0, _THREAD),
        _step(_RETURN, 0, 0, _ERROR | errno.EPERM),
        _step(_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(code)


def _step(code: int, then: int, otherwise: int, number: int) -> bytes:
    return struct.pack("HBBI", code, then, otherwise, number)

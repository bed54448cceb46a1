"""Starts one program so that it cannot outlive its parent: `python -I child.py OPTIONS -- PROGRAM ARGUMENTS`.

A script of its own rather than a `preexec_fn`, because Python code between fork and exec can deadlock when
the parent has threads. It does three things, in an order that matters, and then becomes the program:

1. leaves root, where asked (PostgreSQL refuses to run as root);
2. asks the kernel to signal it when its parent ends. After 1, since a change of credentials clears that wish;
3. checks that the parent had not ended already before 2, when no signal would ever come.

The kernel watches the *thread* that started us, so callers start children from a thread that lives as long as
they do.
"""

import argparse
import ctypes
import os
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1

libc = ctypes.CDLL(None, use_errno=True)


def enter_user_namespace() -> None:
    """Become user 1 of a new user namespace; outside, files and signals still see the same user as before.

    So nothing needs another owner, and folders that only root may enter stay in reach. Raises OSError where
    the kernel or the container forbids it.
    """
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    for name, text in (("setgroups", "deny"), ("uid_map", f"1 {user} 1"), ("gid_map", f"1 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def become(user: int, group: int) -> None:
    """Become another user for good, keeping only root's right to pass folders closed to that user, where we
    have it.

    Without that right (a container may have taken it) the program finds its files only below open folders.
    """
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    keep = 1 << CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    # (effective, permitted, inheritable) for capabilities 0-31, then for 32-63
    wanted = (ctypes.c_uint32 * 6)(keep, keep, keep, 0, 0, 0)
    if libc.capset(ctypes.byref(header), ctypes.byref(wanted)) == 0:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Start a program that ends with its parent.")
    parser.add_argument(
        "--death-signal", type=int, required=True, help="what the kernel sends when the parent ends"
    )
    parser.add_argument("--parent", type=int, required=True, help="process id of the parent")
    parser.add_argument("--user-namespace", action="store_true", help="run as user 1 of a new user namespace")
    parser.add_argument("--user", metavar="UID:GID", help="run as this user")
    parser.add_argument("program", nargs="+")
    options = parser.parse_args()
    try:
        if options.user_namespace:
            enter_user_namespace()
        elif options.user:
            user, group = map(int, options.user.split(":"))
            become(user, group)
        libc.prctl(PR_SET_PDEATHSIG, options.death_signal, 0, 0, 0)
        if os.getppid() != options.parent:
            sys.exit(1)
        os.execvp(options.program[0], options.program)
    except OSError as error:
        sys.exit(f"cannot start {options.program[0]}: {error}")


if __name__ == "__main__":
    main()

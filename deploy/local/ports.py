"""Ports of the loopback interface, each for one stack at a time."""

import errno
import socket

from deploy.local.processes import StackError

DEFAULT_PORT = 8000
TRIES = 20


def claim_port(wanted: int | None) -> tuple[int, socket.socket]:
    """A free port and the claim to it, to be closed when the web server has ended. Raises StackError.

    `wanted` None means the first free one from 8000 on, 0 any at all, a number exactly that one.

    Asking whether a port is free is not enough: granian listens with SO_REUSEPORT, so two stacks started at
    the same time would both get it and share its requests. The claim is an abstract Unix socket: no file, and
    the kernel releases it with this process.
    """
    if wanted is None:
        numbers = list(range(DEFAULT_PORT, DEFAULT_PORT + TRIES))
    elif wanted == 0:
        numbers = [_any_port() for _ in range(TRIES)]
    else:
        numbers = [wanted]
    for number in numbers:
        claim = _claim(number)
        if claim is not None:
            return number, claim
    if wanted:
        free, claim = claim_port(0 if wanted + TRIES > 65535 else None)
        claim.close()
        raise StackError(
            f"Port {wanted} of 127.0.0.1 is taken by another program.\n"
            f"End that program or choose another port; {free} is free: --port {free}"
        )
    raise StackError(
        f"None of the ports {min(numbers)} to {max(numbers)} of 127.0.0.1 is free. Choose one: --port NUMBER"
    )


def _claim(number: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0rankloop-port-{number}")
        with socket.socket() as probe:
            # Without this a port would count as taken for a minute after its last server's connections.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", number))
    except OSError as error:
        claim.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise StackError(
            f"Port {number} of 127.0.0.1 can't be used: {error.strerror}. Choose another one."
        ) from error
    return claim


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

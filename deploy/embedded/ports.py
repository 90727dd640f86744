"""Free local ports that stay free while an engine is down between a kill and its restart."""

import random
import socket

# Below Linux's ephemeral range (32768 and up): otherwise a client that keeps reconnecting to a
# killed engine can be given the engine's own port as its source port, and the restart finds it
# taken (a TCP connection can even connect to itself).
LOWEST_PORT = 20_000
HIGHEST_PORT = 32_000
ATTEMPTS_MAX = 200

_choice = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now."""
    for _ in range(ATTEMPTS_MAX):
        port = _choice.randrange(LOWEST_PORT, HIGHEST_PORT)
        if is_free(port):
            return port
    raise RuntimeError(f"no free port between {LOWEST_PORT} and {HIGHEST_PORT}")


def is_free(port: int) -> bool:
    with socket.socket() as candidate:
        # The engines bind with this option too: a former process's connections in TIME_WAIT are no
        # obstacle.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True

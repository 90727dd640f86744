"""Which code a process runs: a digest of the source files, since a version number says only what
somebody remembered to raise.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
ROOMS: Final = ("api", "deploy", "schemas", "sinks", "streams", "warehouse")
"""What processes are made of; commands and benchmarks may change beside them."""
KINDS: Final = ("*.py", "*.sql", "*.toml")
DIGITS: Final = 12


@cache
def code_digest() -> str:
    """Twelve hexadecimal digits over every source file, as it was when first asked for."""
    digest = sha256()
    for room in ROOMS:
        for kind in KINDS:
            for path in sorted(ROOT.joinpath(room).rglob(kind)):
                content = path.read_bytes()
                name = path.relative_to(ROOT).as_posix()
                digest.update(f"{name}:{len(content)}:".encode() + content)
    return digest.hexdigest()[:DIGITS]

"""A gateway that is confined to a memory cgroup: `python -m tests.chaos.confined CGROUP` joins it, and then becomes
`serve` (or the module that `--as` names) with the further arguments. It joins before anything is imported, so that all
memory that the gateway ever takes counts."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
USED = ("memory.max_usage_in_bytes", "memory.peak")


def _places() -> list[tuple[Path, str]]:
    """Returns where a cgroup may be made, and the file that limits it: version 1, then version 2."""
    return [(ROOT / "memory", "memory.limit_in_bytes"), (ROOT, "memory.max")]


@contextlib.contextmanager
def cgroup(most: int) -> Iterator[Path | None]:
    """Makes a memory cgroup of `most` bytes, removed at the end; yields None if none can be made here."""
    made: Path | None = None
    for place, limit in _places():
        made = place / f"alert-gateway-chaos-{os.getpid()}"
        try:
            made.mkdir()
            (made / limit).write_text(str(most))
            break
        except OSError:
            with contextlib.suppress(OSError):
                made.rmdir()
            made = None
    try:
        yield made
    finally:
        if made is not None:
            with contextlib.suppress(OSError):
                made.rmdir()


def peak(group: Path) -> float:
    """Returns the most memory that it ever had, in MiB, cached files included; 0 if the kernel does not say."""
    for name in USED:
        with contextlib.suppress(OSError):
            return int((group / name).read_text()) / (1 << 20)
    return 0.0


def main() -> None:
    """Joins, and becomes the gateway."""
    group, *arguments = sys.argv[1:]
    program = ["gateway.cli", "serve"]
    if arguments[:1] == ["--as"]:
        program, arguments = [arguments[1]], arguments[2:]
    (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    os.execv(sys.executable, [sys.executable, "-m", *program, *arguments])


if __name__ == "__main__":
    main()

"""Where the `alert-gateway` command enters: until there is somebody to hear it, Ctrl-C ends it as it ends any program,
and not with the stack of whatever is being imported."""

from __future__ import annotations

import signal


def main() -> None:
    """Imports the command line, and runs it."""
    hears = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # who is started in the background does not
    if hears:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from gateway.cli import main as run

    if hears:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()

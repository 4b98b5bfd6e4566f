"""The entry point of the `alert-gateway` command. While modules are imported Ctrl-C has its default action: it ends the
process without a traceback."""

from __future__ import annotations

import signal


def main() -> None:
    """Imports the command line, and runs it."""
    hears = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where it was started in the background
    if hears:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from gateway.cli.commands import main as run

    if hears:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()

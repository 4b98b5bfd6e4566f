"""The promises the gateway makes, each under the fault that would break it, as a command with the figure it reaches.

`python -m tests.chaos.kill --kills 200` and its siblings start real gateway processes on loopback, hurt them, print
one line with the date and the figures, and exit 1 where the promise is broken. With `--control` the same harness runs
against something that is known to break the promise, and exits 1 where it does not notice.
Short forms run inside pytest (`test_durability.py`).

Whoever measures here relies on what is seen from outside: HTTP, the command line, signals, and the store's file opened
through `gateway.store`. What is shared: `processes` (a gateway, and its configuration), `load` (an open-loop load and
what its senders were told), `sink` (an upstream that notes what arrives), `accounts` (whether it adds up), `verdicts`.
"""

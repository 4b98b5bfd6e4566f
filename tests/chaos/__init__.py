"""Commands that test the gateway's promises, each under the fault that would break it, and print the figures reached.

`python -m tests.chaos.kill --kills 200` and its siblings start real gateway processes on loopback, hurt them, print
one line with the date and the figures, and exit 1 if the promise is broken. With `--control` the same harness runs
against something that is known to break the promise, and exits 1 if it does not notice.
Short forms run inside pytest (`test_durability.py`).

The harnesses rely on what is visible from outside: HTTP, the command line, signals, and the store's file opened through
`gateway.store`. Shared modules: `processes` (a gateway, and its configuration), `load` (an open-loop load and its
senders' ledger), `sink` (an upstream that records what arrives), `accounts` (whether these agree), `verdicts`;
`searching` is what the search is made of.
"""

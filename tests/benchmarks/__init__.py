"""Benchmarks of the gateway: `python -m tests.benchmarks` prints the table, or only the rows that are named.

Absolute figures drift by a factor of two on a shared machine, so every figure is a ratio: the gateway and a yardstick
are measured in turns within one run, A B A B, and reported is the median of the rounds, with the least and the most.
These are no tests: nothing here fails where the machine is slow, and pytest collects nothing of it. Shared modules:
`measuring` (turns, rows, the table), `places` (servers, on a core of their own, stopped while the other is measured),
`loads` (clients that ask again as soon as they are answered). Each other module is one family of rows.
"""

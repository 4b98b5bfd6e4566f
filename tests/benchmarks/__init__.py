"""How fast the gateway is, as commands: `python -m tests.benchmarks` prints the table, with rows named
those alone.

Absolute figures drift by a factor of two on a machine that others use too, so every figure is a ratio: the gateway and
a yardstick are measured in turns within one run, A B A B, and what is told is the median of the rounds with the least
and the most. These are no tests: nothing here fails where the machine is slow, and pytest collects nothing of it.
What is shared: `measuring` (turns, rows, the table), `places` (servers, each on a core of its own, and asleep while the
other is measured), `loads` (who asks, as fast as it is answered). The other modules are one family of rows each.
"""

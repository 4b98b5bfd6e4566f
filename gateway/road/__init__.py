"""The road of a command: from what a caller asked to what is committed, and from what waits to what is sent and what
becomes of it. Plain functions of a transaction; no vendor, HTTP or SQL is known here."""

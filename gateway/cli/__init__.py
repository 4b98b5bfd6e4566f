"""The `alert-gateway` command: its subcommands, and what `check`, `explain`, `demo` and `drill` do."""

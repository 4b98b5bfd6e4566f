"""One module or package per vendor: its dialect, declared. Nothing here is imported by name: see `gateway.registry`."""

"""What operators ask of a gateway or its store: the calls below `/-/`, the outbox, the trace of an alert, moving a
store to another engine."""

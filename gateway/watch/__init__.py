"""The gateway's watch over itself: the heartbeat, and alarms about its own trouble. No vendor is known here."""

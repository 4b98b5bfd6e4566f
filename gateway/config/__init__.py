"""The configuration: the file as it is written, the checked form that the rest of the gateway works with, secrets by
reference, and the choice of upstreams for an alert. No vendor is known here."""

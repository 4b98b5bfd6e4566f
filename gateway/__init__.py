"""alert-gateway: a translation proxy between alerting vendors. `README.md` beside this file draws the road."""

__version__ = "0.2.0"

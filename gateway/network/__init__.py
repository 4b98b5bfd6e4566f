"""Addresses and TLS: where the gateway listens, how it reaches upstreams, and certificates that follow their files."""

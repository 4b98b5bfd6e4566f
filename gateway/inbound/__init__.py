"""The way in: limits, authentication, decoding, and answering in the caller's words."""

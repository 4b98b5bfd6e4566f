"""How words of a vendor and the canonical alert correspond: rows, the tables made of them, and what a translation
loses. Pure functions and data; no vendor is known here, and nothing of requests, stores or networks."""

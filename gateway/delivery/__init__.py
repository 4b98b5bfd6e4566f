"""Delivery to upstreams: claiming what is due, sending it, judging the answer, trying again."""

"""The way out: claiming what is due, sending it, judging the answer, trying again."""

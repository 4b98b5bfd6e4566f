"""What a request comes to: commands, reads and lists, callers that wait for verdicts, and repeated requests. No vendor
is known here."""

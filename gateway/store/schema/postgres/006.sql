-- What is open is listed again and again, and found without all that is over: that is kept for as long as retention says.

CREATE INDEX IF NOT EXISTS alerts_open ON alerts (scope, created_at, id) WHERE is_open = 1 AND is_deleted = 0;

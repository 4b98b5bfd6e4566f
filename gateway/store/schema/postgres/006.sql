-- Open alerts are listed again and again: found without going through those that are over and kept for retention.

CREATE INDEX IF NOT EXISTS alerts_open ON alerts (scope, created_at, id) WHERE is_open = 1 AND is_deleted = 0;

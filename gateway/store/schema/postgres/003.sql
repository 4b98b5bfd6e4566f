-- Some senders say for how long an alert holds unless they say it again, and some upstreams have to be told so.

ALTER TABLE alerts ADD COLUMN IF NOT EXISTS ends_at BIGINT;
CREATE INDEX IF NOT EXISTS alerts_ending ON alerts (ends_at) WHERE is_open = 1 AND ends_at IS NOT NULL;
ALTER TABLE targets ADD COLUMN IF NOT EXISTS renew_at BIGINT;
CREATE INDEX IF NOT EXISTS targets_renewable ON targets (renew_at) WHERE renew_at IS NOT NULL;

-- A receipt belongs to the delivery that it was given for: another command of the same alert must not take it for its own.

ALTER TABLE deliveries ADD COLUMN IF NOT EXISTS seen BYTEA NOT NULL DEFAULT '{}';

-- Set by a claim, cleared when what became of the attempt is recorded: whoever claims a delivery on which it is still
-- set knows that a killed gateway may have sent it.

ALTER TABLE deliveries ADD COLUMN IF NOT EXISTS under_way BOOLEAN NOT NULL DEFAULT false;

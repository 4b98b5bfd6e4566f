-- A key that flaps has thousands of alerts within the time of retention, all but one of them over. The search for the
-- open one goes through the targets that are not marked as over. A trigger keeps the mark, so that a replica of the
-- previous release keeps it too; alerts that were over before this file are not marked, which merely costs a lookup.
ALTER TABLE targets ADD COLUMN IF NOT EXISTS is_over BIGINT NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS targets_open ON targets (upstream, lane) WHERE is_over = 0;
CREATE OR REPLACE FUNCTION gateway_alert_over() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN UPDATE targets SET is_over = 1 - NEW.is_open WHERE alert = NEW.id; RETURN NULL; END $$;
DROP TRIGGER IF EXISTS alerts_over ON alerts;
CREATE TRIGGER alerts_over AFTER UPDATE OF is_open ON alerts FOR EACH ROW
    WHEN (OLD.is_open <> NEW.is_open) EXECUTE FUNCTION gateway_alert_over();

-- A key that flaps has thousands of alerts within the time of retention, all but one of them over. Whoever asks which of
-- them is open looks at those that are not known to be over. Kept by the database, so that a replica of the release
-- before keeps it too; what was over before is not said to be, which only costs a look.
ALTER TABLE targets ADD COLUMN IF NOT EXISTS is_over BIGINT NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS targets_open ON targets (upstream, lane) WHERE is_over = 0;
CREATE OR REPLACE FUNCTION gateway_alert_over() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN UPDATE targets SET is_over = 1 - NEW.is_open WHERE alert = NEW.id; RETURN NULL; END $$;
DROP TRIGGER IF EXISTS alerts_over ON alerts;
CREATE TRIGGER alerts_over AFTER UPDATE OF is_open ON alerts FOR EACH ROW
    WHEN (OLD.is_open <> NEW.is_open) EXECUTE FUNCTION gateway_alert_over();

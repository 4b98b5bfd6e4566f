-- A key that flaps has thousands of alerts within the time of retention, all but one of them over. Whoever asks which of
-- them is open looks at those that are not known to be over: only the index's words for it matter, so what is not said
-- to be over although it is only costs a look.
ALTER TABLE targets ADD COLUMN is_over INTEGER NOT NULL DEFAULT 0;
UPDATE targets SET is_over = 1 WHERE alert IN (SELECT id FROM alerts WHERE is_open = 0);
DROP INDEX targets_lane;
CREATE INDEX targets_open ON targets (upstream, lane) WHERE is_over = 0;
CREATE TRIGGER alerts_over AFTER UPDATE OF is_open ON alerts WHEN old.is_open <> new.is_open BEGIN
    UPDATE targets SET is_over = 1 - new.is_open WHERE alert = new.id;
END;
-- Whether anything of an alert waits for an upstream is found without all that was ever said of it, by the index that says
-- how much waits: every further one would cost each delivery.
DROP INDEX deliveries_waiting;
CREATE INDEX deliveries_waiting ON deliveries (upstream, alert, created_at, size) WHERE state = 'waiting';

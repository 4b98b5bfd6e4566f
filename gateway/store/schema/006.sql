-- A key that flaps has thousands of alerts within the time of retention, all but one of them over. The search for the
-- open one goes through the targets that are not marked as over, by an index. The mark only narrows that search, so an
-- alert that is over without being marked merely costs a lookup.
ALTER TABLE targets ADD COLUMN is_over INTEGER NOT NULL DEFAULT 0;
UPDATE targets SET is_over = 1 WHERE alert IN (SELECT id FROM alerts WHERE is_open = 0);
DROP INDEX targets_lane;
CREATE INDEX targets_open ON targets (upstream, lane) WHERE is_over = 0;
CREATE TRIGGER alerts_over AFTER UPDATE OF is_open ON alerts WHEN old.is_open <> new.is_open BEGIN
    UPDATE targets SET is_over = 1 - new.is_open WHERE alert = new.id;
END;
-- Whether a delivery of an alert waits for an upstream is found without all the alert's deliveries, by the index that
-- also serves the count of what waits: a further index would cost every delivery a write.
DROP INDEX deliveries_waiting;
CREATE INDEX deliveries_waiting ON deliveries (upstream, alert, created_at, size) WHERE state = 'waiting';

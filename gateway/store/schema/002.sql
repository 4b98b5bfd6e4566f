-- What delivery needs to be trusted with a page: ranks and fences, notes, idempotency keys, and sums that add up.

ALTER TABLE deliveries ADD COLUMN rank INTEGER NOT NULL DEFAULT 3;
ALTER TABLE deliveries ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
-- What waits in a lane is found without its history, which is thousands of deliveries for a busy key.
CREATE INDEX deliveries_lane_waiting ON deliveries (upstream, lane, id) WHERE state = 'waiting';
CREATE INDEX deliveries_dead ON deliveries (upstream, id) WHERE state = 'dead';
CREATE INDEX deliveries_ranked ON deliveries (upstream, rank, due) WHERE state = 'waiting';

ALTER TABLE commands ADD COLUMN fanout INTEGER NOT NULL DEFAULT 0;
UPDATE commands SET fanout = (SELECT count(*) FROM deliveries d WHERE d.command = commands.id) WHERE refused IS NULL;

-- What has to survive a restart and belongs to no alert: breakers, buckets, this store's own name.
CREATE TABLE notes (
    name  TEXT PRIMARY KEY,
    body  BLOB NOT NULL
) WITHOUT ROWID;

-- The first answer to each idempotency key.
CREATE TABLE keyed (
    scope   TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    digest  TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    answer  BLOB    NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX keyed_at ON keyed (at);

-- Conditions written so that every engine sees that a query implies them.
DROP INDEX alerts_open_key;
DROP INDEX alerts_name;
DROP INDEX alerts_updated;
CREATE UNIQUE INDEX alerts_open_key ON alerts (scope, key) WHERE is_open = 1 AND key IS NOT NULL;
CREATE UNIQUE INDEX alerts_name ON alerts (scope, name) WHERE name IS NOT NULL AND is_deleted = 0;
CREATE INDEX alerts_updated ON alerts (updated_at) WHERE is_open = 0;

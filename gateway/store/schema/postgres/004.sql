-- Why something failed, as a code that never changes; and who calls.

ALTER TABLE deliveries ADD COLUMN IF NOT EXISTS code TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS code TEXT COLLATE "C" NOT NULL DEFAULT '';
-- An alert is found by the key that it has at an upstream, which may be one that only that upstream and we know.
CREATE INDEX IF NOT EXISTS targets_key ON targets (key) WHERE key IS NOT NULL;

CREATE TABLE IF NOT EXISTS calls (
    dialect     TEXT   COLLATE "C" NOT NULL,
    caller      TEXT   COLLATE "C" NOT NULL,
    method      TEXT   COLLATE "C" NOT NULL,
    path        TEXT   COLLATE "C" NOT NULL,
    agent       TEXT   COLLATE "C" NOT NULL,
    outcome     TEXT   COLLATE "C" NOT NULL,
    count       BIGINT NOT NULL,
    first_seen  BIGINT NOT NULL,
    last_seen   BIGINT NOT NULL,
    PRIMARY KEY (dialect, caller, outcome, method, path, agent)
);
CREATE INDEX IF NOT EXISTS calls_last_seen ON calls (last_seen);

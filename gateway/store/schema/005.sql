-- Why something failed, as a code that never changes; and who calls.

ALTER TABLE deliveries ADD COLUMN code TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN code TEXT NOT NULL DEFAULT '';
-- An alert is found by the key that it has at an upstream, which may be one that only that upstream and we know.
CREATE INDEX targets_key ON targets (key) WHERE key IS NOT NULL;

CREATE TABLE calls (
    dialect     TEXT    NOT NULL,
    caller      TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    agent       TEXT    NOT NULL,
    outcome     TEXT    NOT NULL,
    count       INTEGER NOT NULL,
    first_seen  INTEGER NOT NULL,
    last_seen   INTEGER NOT NULL,
    PRIMARY KEY (dialect, caller, outcome, method, path, agent)
) WITHOUT ROWID;
CREATE INDEX calls_last_seen ON calls (last_seen);

-- The first schema. Times are milliseconds since 1970; bodies are JSON.

CREATE TABLE alerts (
    id          INTEGER PRIMARY KEY,
    scope       TEXT    NOT NULL,
    dialect     TEXT    NOT NULL,
    caller      TEXT    NOT NULL,
    shown       TEXT    NOT NULL,
    key         TEXT,
    name        TEXT,
    status      TEXT    NOT NULL,
    resource    TEXT,
    is_open     INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    body        BLOB    NOT NULL,
    verbatim    BLOB,
    is_deleted  INTEGER NOT NULL
);
-- One open alert per key, one alert per unique name: decided here, whatever anybody has cached.
CREATE UNIQUE INDEX alerts_open_key ON alerts (scope, key) WHERE is_open AND key IS NOT NULL;
CREATE UNIQUE INDEX alerts_name ON alerts (scope, name) WHERE name IS NOT NULL AND NOT is_deleted;
CREATE INDEX alerts_key ON alerts (scope, key) WHERE key IS NOT NULL;
CREATE INDEX alerts_shown ON alerts (scope, shown);
CREATE INDEX alerts_updated ON alerts (updated_at) WHERE NOT is_open;

-- Every id that any party ever used for an alert.
CREATE TABLE ids (
    scope  TEXT    NOT NULL,
    name   TEXT    NOT NULL,
    party  TEXT    NOT NULL,
    alert  INTEGER NOT NULL,
    PRIMARY KEY (scope, name, party, alert)
) WITHOUT ROWID;
CREATE INDEX ids_party ON ids (party, name);
CREATE INDEX ids_alert ON ids (alert);

-- Where each alert stands at each upstream.
CREATE TABLE targets (
    alert     INTEGER NOT NULL,
    upstream  TEXT    NOT NULL,
    position  INTEGER NOT NULL,
    lane      TEXT    NOT NULL,
    key       TEXT,
    state     TEXT    NOT NULL,
    route     TEXT    NOT NULL,
    ids       BLOB    NOT NULL,
    seen      BLOB    NOT NULL,
    replaced  BLOB    NOT NULL,
    revives   INTEGER,
    PRIMARY KEY (alert, upstream)
) WITHOUT ROWID;
CREATE INDEX targets_lane ON targets (upstream, lane);

-- What was asked, in the canonical form: requests are built when they are sent.
CREATE TABLE commands (
    id         INTEGER PRIMARY KEY,
    request    INTEGER NOT NULL,
    alert      INTEGER,
    operation  TEXT    NOT NULL,
    scope      TEXT    NOT NULL,
    dialect    TEXT    NOT NULL,
    caller     TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    body       BLOB    NOT NULL,
    refused    TEXT
);
CREATE INDEX commands_at ON commands (at);
CREATE INDEX commands_alert ON commands (alert);

-- The outbox.
CREATE TABLE deliveries (
    id           INTEGER PRIMARY KEY,
    command      INTEGER NOT NULL,
    alert        INTEGER,
    upstream     TEXT    NOT NULL,
    lane         TEXT    NOT NULL,
    key          TEXT,
    operation    TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    due          INTEGER NOT NULL,
    size         INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    finished_at  INTEGER,
    status       INTEGER,
    reason       TEXT    NOT NULL,
    report       BLOB    NOT NULL,
    merges       BLOB    NOT NULL
);
CREATE INDEX deliveries_waiting ON deliveries (upstream, created_at, size) WHERE state = 'waiting';
CREATE INDEX deliveries_due ON deliveries (upstream, due) WHERE state = 'waiting';
CREATE INDEX deliveries_lane ON deliveries (upstream, lane, id);
CREATE INDEX deliveries_alert ON deliveries (alert);
CREATE INDEX deliveries_command ON deliveries (command);
CREATE INDEX deliveries_finished ON deliveries (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE attempts (
    delivery  INTEGER NOT NULL,
    number    INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    took      INTEGER NOT NULL,
    status    INTEGER,
    outcome   TEXT    NOT NULL,
    reason    TEXT    NOT NULL,
    PRIMARY KEY (delivery, number)
) WITHOUT ROWID;

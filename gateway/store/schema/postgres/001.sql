-- The first schema for PostgreSQL. Times are milliseconds since 1970; bodies are JSON as the gateway wrote it.
--
-- Text is compared byte by byte (COLLATE "C"): what is the same key is decided by dialects, not by a locale.
-- Flags are 0 or 1, as the statements that all engines share have them.

CREATE TABLE alerts (
    id          BIGINT PRIMARY KEY,
    scope       TEXT COLLATE "C" NOT NULL,
    dialect     TEXT COLLATE "C" NOT NULL,
    caller      TEXT COLLATE "C" NOT NULL,
    shown       TEXT COLLATE "C" NOT NULL,
    key         TEXT COLLATE "C",
    name        TEXT COLLATE "C",
    status      TEXT COLLATE "C" NOT NULL,
    resource    TEXT COLLATE "C",
    is_open     SMALLINT NOT NULL,
    version     BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    body        BYTEA NOT NULL,
    verbatim    BYTEA,
    is_deleted  SMALLINT NOT NULL
);
-- One open alert per key, one alert per unique name: decided here, whatever anybody has cached.
CREATE UNIQUE INDEX alerts_open_key ON alerts (scope, key) WHERE is_open = 1 AND key IS NOT NULL;
CREATE UNIQUE INDEX alerts_name ON alerts (scope, name) WHERE name IS NOT NULL AND is_deleted = 0;
CREATE INDEX alerts_key ON alerts (scope, key, id) WHERE key IS NOT NULL;
CREATE INDEX alerts_shown ON alerts (scope, shown);
CREATE INDEX alerts_updated ON alerts (updated_at) WHERE is_open = 0;
CREATE INDEX alerts_listed ON alerts (scope, created_at, id) WHERE is_deleted = 0;

-- Every id that any party ever used for an alert.
CREATE TABLE ids (
    scope  TEXT COLLATE "C" NOT NULL,
    name   TEXT COLLATE "C" NOT NULL,
    party  TEXT COLLATE "C" NOT NULL,
    alert  BIGINT NOT NULL,
    PRIMARY KEY (scope, name, party, alert)
);
CREATE INDEX ids_party ON ids (party, name);
CREATE INDEX ids_alert ON ids (alert);

-- Where each alert stands at each upstream.
CREATE TABLE targets (
    alert     BIGINT NOT NULL,
    upstream  TEXT COLLATE "C" NOT NULL,
    position  BIGINT NOT NULL,
    lane      TEXT COLLATE "C" NOT NULL,
    key       TEXT COLLATE "C",
    state     TEXT COLLATE "C" NOT NULL,
    route     TEXT COLLATE "C" NOT NULL,
    ids       BYTEA NOT NULL,
    seen      BYTEA NOT NULL,
    replaced  BYTEA NOT NULL,
    revives   BIGINT,
    PRIMARY KEY (alert, upstream)
);
CREATE INDEX targets_lane ON targets (upstream, lane);

-- What was asked, in the canonical form: requests are built when they are sent.
CREATE TABLE commands (
    id         BIGINT PRIMARY KEY,
    request    BIGINT NOT NULL,
    alert      BIGINT,
    operation  TEXT COLLATE "C" NOT NULL,
    scope      TEXT COLLATE "C" NOT NULL,
    dialect    TEXT COLLATE "C" NOT NULL,
    caller     TEXT COLLATE "C" NOT NULL,
    at         BIGINT NOT NULL,
    body       BYTEA NOT NULL,
    refused    TEXT COLLATE "C",
    fanout     BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX commands_at ON commands (at);
CREATE INDEX commands_alert ON commands (alert);

-- The outbox. `owner` is the replica that holds a delivery, until `leased_until` by this server's clock; `fence` grows
-- whenever another one takes it over. Room is left in each page so that a claim touches no index.
CREATE TABLE deliveries (
    id            BIGINT PRIMARY KEY,
    command       BIGINT NOT NULL,
    alert         BIGINT,
    upstream      TEXT COLLATE "C" NOT NULL,
    lane          TEXT COLLATE "C" NOT NULL,
    key           TEXT COLLATE "C",
    operation     TEXT COLLATE "C" NOT NULL,
    state         TEXT COLLATE "C" NOT NULL,
    created_at    BIGINT NOT NULL,
    due           BIGINT NOT NULL,
    size          BIGINT NOT NULL,
    attempts      BIGINT NOT NULL,
    finished_at   BIGINT,
    status        BIGINT,
    reason        TEXT COLLATE "C" NOT NULL,
    report        BYTEA NOT NULL,
    merges        BYTEA NOT NULL,
    rank          BIGINT NOT NULL DEFAULT 3,
    fence         BIGINT NOT NULL DEFAULT 0,
    owner         TEXT COLLATE "C" NOT NULL DEFAULT '',
    leased_until  TIMESTAMPTZ NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 80);
CREATE INDEX deliveries_due ON deliveries (upstream, due) WHERE state = 'waiting';
CREATE INDEX deliveries_ranked ON deliveries (upstream, rank, due) WHERE state = 'waiting';
CREATE INDEX deliveries_head ON deliveries (upstream, lane, id) WHERE state = 'waiting';
CREATE INDEX deliveries_waiting ON deliveries (upstream, created_at, size) WHERE state = 'waiting';
CREATE INDEX deliveries_dead ON deliveries (upstream, id) WHERE state = 'dead';
CREATE INDEX deliveries_lane ON deliveries (upstream, lane, id);
CREATE INDEX deliveries_alert ON deliveries (alert);
CREATE INDEX deliveries_command ON deliveries (command);
CREATE INDEX deliveries_finished ON deliveries (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE attempts (
    delivery  BIGINT NOT NULL,
    number    BIGINT NOT NULL,
    at        BIGINT NOT NULL,
    took      BIGINT NOT NULL,
    status    BIGINT,
    outcome   TEXT COLLATE "C" NOT NULL,
    reason    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (delivery, number)
);

-- What has to survive a restart and belongs to no alert: breakers, buckets, this store's own name.
CREATE TABLE notes (
    name  TEXT COLLATE "C" PRIMARY KEY,
    body  BYTEA NOT NULL
);

-- The first answer to each idempotency key.
CREATE TABLE keyed (
    scope   TEXT COLLATE "C" NOT NULL,
    key     TEXT COLLATE "C" NOT NULL,
    digest  TEXT COLLATE "C" NOT NULL,
    at      BIGINT NOT NULL,
    answer  BYTEA NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX keyed_at ON keyed (at);

-- The part of every new id that is one process's own, leased as deliveries are. There are as many as an id has room
-- for (gateway.ids).
CREATE TABLE slots (
    slot          BIGINT PRIMARY KEY,
    owner         TEXT COLLATE "C" NOT NULL DEFAULT '',
    leased_until  TIMESTAMPTZ NOT NULL DEFAULT '-infinity'
);
INSERT INTO slots (slot) SELECT generate_series(0, 31);

-- The ledger counts by an index alone: most bytes of two million commands are their bodies, and `fanout` is stored
-- behind the body.
CREATE INDEX commands_counted ON commands (at, caller, dialect, operation, fanout, refused);
DROP INDEX commands_at;

-- The ledger counts by an index alone: of two million commands most of what they take is what they said, and how many
-- deliveries each made stands behind that.
CREATE INDEX commands_counted ON commands (at, caller, dialect, operation, fanout, refused);
DROP INDEX commands_at;

-- A list is read in its order, and counted, without the alerts themselves; of a period, without all that came before.
-- An index of all alerts, not of those alone that are not deleted: of two such, what is open is not always looked for by
-- the smaller one.
CREATE INDEX alerts_listed ON alerts (scope, created_at, id, is_deleted);

-- A list is sorted and counted by this index alone, without the alerts; that of a period without what came before it.
-- It covers deleted alerts too: if it were a partial index like alerts_open, the planner would not always choose the
-- smaller of the two for open alerts.
CREATE INDEX alerts_listed ON alerts (scope, created_at, id, is_deleted);

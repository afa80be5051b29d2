-- Results that replace others: what is not sent any more, and who is told of it.

ALTER TABLE delivery ADD COLUMN replaced_by INTEGER;                  -- the step that replaced it
ALTER TABLE delivery ADD COLUMN rejected_by TEXT NOT NULL DEFAULT ''; -- the note that says so
CREATE INDEX delivery_replaced ON delivery (destination)
WHERE replaced_by IS NOT NULL AND rejected_by = '' AND state <> 'WITHDRAWN';

DROP VIEW owed;
CREATE VIEW owed AS                  -- deliveries that neither an operator nor a newer result stops
SELECT delivery.* FROM delivery
JOIN result ON result.sop_instance_uid = result_uid
JOIN series ON series.series_uid = source_series_uid
WHERE series.state <> 'HELD' AND delivery.replaced_by IS NULL;

-- What the audit trail asks when an association has ended: what did it bring?

DROP INDEX instance_series;
CREATE INDEX instance_series ON instance (series_uid, association, sop_class_uid);

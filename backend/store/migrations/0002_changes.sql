-- Stamp each inserted or updated row with the next number of the change sequence.
-- The guard on updates keeps the stamp itself from counting as a change.

CREATE INDEX campaigns_by_change ON campaigns (change);
CREATE TRIGGER campaigns_stamp_insert AFTER INSERT ON campaigns BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE campaigns SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;
CREATE TRIGGER campaigns_stamp_update AFTER UPDATE ON campaigns WHEN new.change = old.change BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE campaigns SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;

CREATE INDEX samples_by_change ON samples (change);
CREATE TRIGGER samples_stamp_insert AFTER INSERT ON samples BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE samples SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;
CREATE TRIGGER samples_stamp_update AFTER UPDATE ON samples WHEN new.change = old.change BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE samples SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;

CREATE INDEX jobs_by_change ON jobs (change);
CREATE TRIGGER jobs_stamp_insert AFTER INSERT ON jobs BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE jobs SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;
CREATE TRIGGER jobs_stamp_update AFTER UPDATE ON jobs WHEN new.change = old.change BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE jobs SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;

CREATE INDEX runs_by_change ON runs (change);
CREATE TRIGGER runs_stamp_insert AFTER INSERT ON runs BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE runs SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;
CREATE TRIGGER runs_stamp_update AFTER UPDATE ON runs WHEN new.change = old.change BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE runs SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;

CREATE INDEX evaluations_by_change ON evaluations (change);
CREATE TRIGGER evaluations_stamp_insert AFTER INSERT ON evaluations BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE evaluations SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;
CREATE TRIGGER evaluations_stamp_update AFTER UPDATE ON evaluations WHEN new.change = old.change BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE evaluations SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;

CREATE INDEX comparisons_by_change ON comparisons (change);
CREATE TRIGGER comparisons_stamp_insert AFTER INSERT ON comparisons BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE comparisons SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;
CREATE TRIGGER comparisons_stamp_update AFTER UPDATE ON comparisons WHEN new.change = old.change BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE comparisons SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;

CREATE INDEX pairs_by_change ON pairs (change);
CREATE TRIGGER pairs_stamp_insert AFTER INSERT ON pairs BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE pairs SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;
CREATE TRIGGER pairs_stamp_update AFTER UPDATE ON pairs WHEN new.change = old.change BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE pairs SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;

CREATE INDEX models_by_change ON models (change);
CREATE TRIGGER models_stamp_insert AFTER INSERT ON models BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE models SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;
CREATE TRIGGER models_stamp_update AFTER UPDATE ON models WHEN new.change = old.change BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE models SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;

CREATE INDEX deployments_by_change ON deployments (change);
CREATE TRIGGER deployments_stamp_insert AFTER INSERT ON deployments BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE deployments SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;
CREATE TRIGGER deployments_stamp_update AFTER UPDATE ON deployments WHEN new.change = old.change BEGIN
  UPDATE change_sequence SET value = value + 1;
  UPDATE deployments SET change = (SELECT value FROM change_sequence) WHERE id = new.id;
END;

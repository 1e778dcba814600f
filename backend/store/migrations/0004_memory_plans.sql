-- What the planner said a run would take of its card, kept to be compared with what it took (the metric
-- peak_memory_mib of its jobs). `predicted_mib` is what torch would allocate, before any correction.
CREATE TABLE memory_plans (
  run_id        INTEGER PRIMARY KEY REFERENCES runs (id),
  predicted_mib REAL NOT NULL,
  card_mib      REAL NOT NULL
);

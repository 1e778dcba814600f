-- The house: every aggregate of the control side. Times are Unix seconds (REAL), JSON is TEXT.
-- Rows that screens watch carry `change`, a number from one sequence for the whole database:
-- a viewer asks for what is above the number it has seen, so it notices updates as well as inserts.

CREATE TABLE change_sequence (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL);
INSERT INTO change_sequence VALUES (1, 0);

-- One writer for each campaign, job mirror or deployment; any number of viewers.
CREATE TABLE leases (
  resource  TEXT PRIMARY KEY,
  owner     TEXT NOT NULL,
  heartbeat REAL NOT NULL
);

CREATE TABLE campaigns (
  id          INTEGER PRIMARY KEY,
  name        TEXT NOT NULL UNIQUE,
  state       TEXT NOT NULL CHECK (state IN ('created', 'running', 'paused', 'done', 'cancelled', 'failed')),
  wish        TEXT CHECK (wish IN ('pause', 'cancel')),
  provider    TEXT NOT NULL,
  model       TEXT NOT NULL,
  base_url    TEXT,
  target      INTEGER NOT NULL CHECK (target > 0),
  temperature REAL NOT NULL,
  max_tokens  INTEGER,
  seed        INTEGER NOT NULL,
  parallel    INTEGER NOT NULL CHECK (parallel > 0),
  budget_usd  REAL,
  budget_requests INTEGER,
  error       TEXT,
  created_at  REAL NOT NULL,
  started_at  REAL,
  ended_at    REAL,
  change      INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE campaign_domains (
  campaign_id INTEGER NOT NULL REFERENCES campaigns (id),
  domain      TEXT NOT NULL,
  target      INTEGER NOT NULL CHECK (target >= 0),
  accepted    INTEGER NOT NULL DEFAULT 0,
  rejected    INTEGER NOT NULL DEFAULT 0,
  exhausted   INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (campaign_id, domain)
) WITHOUT ROWID;

-- The ledger: one call of a provider, a row before it is sent, the raw answer before it is judged.
CREATE TABLE requests (
  id            INTEGER PRIMARY KEY,
  purpose       TEXT NOT NULL CHECK (purpose IN ('generate', 'candidate', 'judge', 'evaluate', 'chat')),
  campaign_id   INTEGER REFERENCES campaigns (id),
  domain        TEXT,
  ordinal       INTEGER,
  content_key   TEXT NOT NULL,
  attempt       INTEGER NOT NULL,
  provider      TEXT NOT NULL,
  model         TEXT NOT NULL,
  prompt        TEXT NOT NULL,
  routing       TEXT,
  state         TEXT NOT NULL CHECK (state IN ('sent', 'answered', 'failed', 'unanswered')),
  error_kind    TEXT,
  error_message TEXT,
  raw           BLOB,
  prompt_tokens INTEGER,
  completion_tokens INTEGER,
  cached_tokens INTEGER,
  cost_usd      REAL,
  sent_at       REAL NOT NULL,
  ended_at      REAL,
  judged        INTEGER NOT NULL DEFAULT 0,
  UNIQUE (content_key, attempt)
);
CREATE INDEX requests_by_campaign ON requests (campaign_id, domain, ordinal);
CREATE INDEX requests_open ON requests (campaign_id, state) WHERE state IN ('sent', 'answered') AND judged = 0;

CREATE TABLE samples (
  id          INTEGER PRIMARY KEY,
  uid         TEXT NOT NULL UNIQUE,
  campaign_id INTEGER REFERENCES campaigns (id),
  request_id  INTEGER UNIQUE REFERENCES requests (id),
  domain      TEXT NOT NULL,
  family      TEXT NOT NULL,
  source      TEXT NOT NULL,
  state       TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'rejected', 'flagged', 'gated')),
  revision    INTEGER NOT NULL DEFAULT 1,
  instruction TEXT NOT NULL,
  input       TEXT NOT NULL DEFAULT '',
  output      TEXT NOT NULL,
  score       REAL,
  rating      INTEGER CHECK (rating BETWEEN 1 AND 5),
  provider    TEXT,
  model       TEXT,
  exact_hash  TEXT NOT NULL,
  extra       TEXT NOT NULL DEFAULT '{}',
  created_at  REAL NOT NULL,
  decided_at  REAL,
  change      INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX samples_by_state ON samples (state, id);
CREATE INDEX samples_by_campaign ON samples (campaign_id, domain, state, id);
CREATE INDEX samples_by_domain ON samples (domain, id);
CREATE INDEX samples_by_score ON samples (score, id);
CREATE INDEX samples_by_hash ON samples (exact_hash);

-- Every text that a sample ever had; the current one is also on the sample.
CREATE TABLE revisions (
  sample_id   INTEGER NOT NULL REFERENCES samples (id),
  revision    INTEGER NOT NULL,
  instruction TEXT NOT NULL,
  input       TEXT NOT NULL,
  output      TEXT NOT NULL,
  author      TEXT NOT NULL,
  created_at  REAL NOT NULL,
  PRIMARY KEY (sample_id, revision)
) WITHOUT ROWID;

CREATE TABLE gates (
  sample_id INTEGER NOT NULL REFERENCES samples (id),
  position  INTEGER NOT NULL,
  name      TEXT NOT NULL,
  passed    INTEGER,
  figure    REAL,
  reason    TEXT NOT NULL,
  PRIMARY KEY (sample_id, position)
) WITHOUT ROWID;

-- Append-only. Undo is a row that points at what it undoes; samples.state can be rebuilt from here.
CREATE TABLE decisions (
  id              INTEGER PRIMARY KEY,
  sample_id       INTEGER NOT NULL REFERENCES samples (id),
  kind            TEXT NOT NULL CHECK (kind IN ('approve', 'reject', 'flag', 'skip', 'edit', 'rate', 'undo', 'redo')),
  reason          TEXT,
  rating          INTEGER,
  reviewer        TEXT NOT NULL,
  reviewer_kind   TEXT NOT NULL CHECK (reviewer_kind IN ('person', 'policy')),
  undoes          INTEGER REFERENCES decisions (id),
  state_before    TEXT NOT NULL,
  state_after     TEXT NOT NULL,
  revision_before INTEGER NOT NULL,
  revision_after  INTEGER NOT NULL,
  at              REAL NOT NULL
);
CREATE INDEX decisions_by_sample ON decisions (sample_id, id);
CREATE INDEX decisions_by_reviewer ON decisions (reviewer, id);

-- MinHash bands of everything ever accepted: a second campaign and a restart see them.
CREATE TABLE signatures (sample_id INTEGER PRIMARY KEY REFERENCES samples (id), signature BLOB NOT NULL);
CREATE TABLE bands (
  band      INTEGER NOT NULL,
  sample_id INTEGER NOT NULL,
  PRIMARY KEY (band, sample_id)
) WITHOUT ROWID;

CREATE VIRTUAL TABLE samples_fts USING fts5 (instruction, input, output, content = 'samples', content_rowid = 'id');
CREATE TRIGGER samples_fts_insert AFTER INSERT ON samples BEGIN
  INSERT INTO samples_fts (rowid, instruction, input, output) VALUES (new.id, new.instruction, new.input, new.output);
END;
CREATE TRIGGER samples_fts_update AFTER UPDATE OF instruction, input, output ON samples BEGIN
  INSERT INTO samples_fts (samples_fts, rowid, instruction, input, output)
    VALUES ('delete', old.id, old.instruction, old.input, old.output);
  INSERT INTO samples_fts (rowid, instruction, input, output) VALUES (new.id, new.instruction, new.input, new.output);
END;

CREATE TABLE dataset_versions (
  id           INTEGER PRIMARY KEY,
  name         TEXT NOT NULL,
  version      INTEGER NOT NULL,
  path         TEXT NOT NULL,
  content_hash TEXT NOT NULL,
  seed         INTEGER NOT NULL,
  filters      TEXT NOT NULL,
  train        INTEGER NOT NULL,
  val          INTEGER NOT NULL,
  test         INTEGER NOT NULL,
  created_at   REAL NOT NULL,
  UNIQUE (name, version)
);
CREATE TABLE dataset_rows (
  dataset_id INTEGER NOT NULL REFERENCES dataset_versions (id),
  sample_id  INTEGER NOT NULL REFERENCES samples (id),
  revision   INTEGER NOT NULL,
  split      TEXT NOT NULL CHECK (split IN ('train', 'val', 'test')),
  PRIMARY KEY (dataset_id, sample_id)
) WITHOUT ROWID;

-- A mirror of what the host holds: the host's folder is the truth of a job.
CREATE TABLE jobs (
  id            TEXT PRIMARY KEY,
  host          TEXT NOT NULL,
  kind          TEXT NOT NULL,
  argv          TEXT NOT NULL,
  spec          TEXT NOT NULL DEFAULT '{}',
  state         TEXT NOT NULL CHECK (state IN
    ('queued', 'starting', 'running', 'stopping', 'done', 'failed', 'cancelled', 'lost')),
  exit_code     INTEGER,
  error         TEXT,
  log_path      TEXT,
  events_offset INTEGER NOT NULL DEFAULT 0,
  created_at    REAL NOT NULL,
  started_at    REAL,
  ended_at      REAL,
  seen_at       REAL,
  change        INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE events (
  job_id  TEXT NOT NULL REFERENCES jobs (id),
  seq     INTEGER NOT NULL,
  kind    TEXT NOT NULL,
  at      REAL NOT NULL,
  payload TEXT NOT NULL,
  PRIMARY KEY (job_id, seq)
) WITHOUT ROWID;
CREATE INDEX events_by_kind ON events (job_id, kind, seq);
CREATE TABLE metrics (
  job_id TEXT NOT NULL REFERENCES jobs (id),
  name   TEXT NOT NULL,
  step   INTEGER NOT NULL,
  value  REAL,
  PRIMARY KEY (job_id, name, step)
) WITHOUT ROWID;

-- A run is one training job and what it left.
CREATE TABLE runs (
  id          INTEGER PRIMARY KEY,
  name        TEXT NOT NULL UNIQUE,
  kind        TEXT NOT NULL CHECK (kind IN ('sft', 'dpo')),
  job_id      TEXT REFERENCES jobs (id),
  host        TEXT NOT NULL,
  base_model  TEXT NOT NULL,
  parent      TEXT,
  dataset_id  INTEGER REFERENCES dataset_versions (id),
  recipe      TEXT NOT NULL,
  output_dir  TEXT NOT NULL,
  step        INTEGER,
  total_steps INTEGER,
  loss        REAL,
  eval_loss   REAL,
  created_at  REAL NOT NULL,
  change      INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE checkpoints (
  run_id INTEGER NOT NULL REFERENCES runs (id),
  step   INTEGER NOT NULL,
  path   TEXT NOT NULL,
  at     REAL NOT NULL,
  PRIMARY KEY (run_id, step)
) WITHOUT ROWID;

CREATE TABLE evaluations (
  id         INTEGER PRIMARY KEY,
  model      TEXT NOT NULL,
  benchmarks TEXT NOT NULL,
  state      TEXT NOT NULL CHECK (state IN ('running', 'done', 'failed', 'cancelled')),
  job_id     TEXT REFERENCES jobs (id),
  perplexity TEXT NOT NULL DEFAULT '{}',
  notes      TEXT NOT NULL DEFAULT '[]',
  output     TEXT,
  error      TEXT,
  created_at REAL NOT NULL,
  ended_at   REAL,
  change     INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE outcomes (
  evaluation_id INTEGER NOT NULL REFERENCES evaluations (id),
  benchmark     TEXT NOT NULL,
  item_id       TEXT NOT NULL,
  family        TEXT NOT NULL,
  category      TEXT NOT NULL,
  outcome       TEXT NOT NULL,
  score         REAL,
  answer        TEXT NOT NULL,
  reference     TEXT NOT NULL DEFAULT '',
  prompt        TEXT NOT NULL DEFAULT '',
  detail        TEXT NOT NULL,
  PRIMARY KEY (evaluation_id, benchmark, item_id)
) WITHOUT ROWID;
CREATE TABLE comparisons (
  id           INTEGER PRIMARY KEY,
  baseline     INTEGER NOT NULL REFERENCES evaluations (id),
  finetuned    INTEGER NOT NULL REFERENCES evaluations (id),
  verdict      TEXT NOT NULL CHECK (verdict IN ('better', 'worse', 'cannot_tell')),
  items_needed INTEGER,
  difference   REAL NOT NULL,
  low          REAL NOT NULL,
  high         REAL NOT NULL,
  p_value      REAL NOT NULL,
  report       TEXT,
  created_at   REAL NOT NULL,
  change       INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE candidates (
  id          INTEGER PRIMARY KEY,
  batch       TEXT NOT NULL,
  prompt_key  TEXT NOT NULL,
  prompt      TEXT NOT NULL,
  request_id  INTEGER UNIQUE REFERENCES requests (id),
  model       TEXT NOT NULL,
  temperature REAL,
  output      TEXT NOT NULL,
  scorer      TEXT NOT NULL,
  score       REAL,
  detail      TEXT NOT NULL DEFAULT '',
  created_at  REAL NOT NULL
);
CREATE INDEX candidates_by_prompt ON candidates (batch, prompt_key);
CREATE TABLE pairs (
  id         INTEGER PRIMARY KEY,
  uid        TEXT NOT NULL UNIQUE,
  batch      TEXT NOT NULL,
  prompt     TEXT NOT NULL,
  chosen     TEXT NOT NULL,
  rejected   TEXT NOT NULL,
  margin     REAL,
  scorer     TEXT NOT NULL,
  source     TEXT NOT NULL,
  state      TEXT NOT NULL CHECK (state IN ('pending', 'decided', 'tie', 'bad')),
  created_at REAL NOT NULL,
  decided_at REAL,
  change     INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX pairs_by_state ON pairs (state, id);
-- Append-only: which text stood left, what the person said, before and after.
CREATE TABLE pair_decisions (
  id            INTEGER PRIMARY KEY,
  pair_id       INTEGER NOT NULL REFERENCES pairs (id),
  choice        TEXT NOT NULL CHECK (choice IN ('left', 'right', 'tie', 'bad', 'undo')),
  left_is       TEXT NOT NULL CHECK (left_is IN ('chosen', 'rejected')),
  swapped       INTEGER NOT NULL,
  state_before  TEXT NOT NULL,
  state_after   TEXT NOT NULL,
  reviewer      TEXT NOT NULL,
  reviewer_kind TEXT NOT NULL CHECK (reviewer_kind IN ('person', 'policy')),
  undoes        INTEGER REFERENCES pair_decisions (id),
  at            REAL NOT NULL
);

CREATE TABLE models (
  id         INTEGER PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  kind       TEXT NOT NULL CHECK (kind IN ('base', 'adapter', 'merged', 'gguf', 'ollama', 'api')),
  location   TEXT NOT NULL,
  host       TEXT NOT NULL,
  parent     TEXT,
  run_id     INTEGER REFERENCES runs (id),
  size_bytes INTEGER,
  details    TEXT NOT NULL DEFAULT '{}',
  created_at REAL NOT NULL,
  change     INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE deployments (
  id         INTEGER PRIMARY KEY,
  name       TEXT NOT NULL,
  version    INTEGER NOT NULL,
  kind       TEXT NOT NULL CHECK (kind IN ('hf', 'gguf', 'ollama', 'vllm')),
  model      TEXT NOT NULL,
  host       TEXT NOT NULL,
  state      TEXT NOT NULL CHECK (state IN ('starting', 'serving', 'published', 'stopped', 'failed', 'replaced')),
  endpoint   TEXT,
  job_id     TEXT REFERENCES jobs (id),
  details    TEXT NOT NULL DEFAULT '{}',
  error      TEXT,
  created_at REAL NOT NULL,
  ended_at   REAL,
  change     INTEGER NOT NULL DEFAULT 0,
  UNIQUE (name, version)
);
CREATE TABLE exchanges (
  id            INTEGER PRIMARY KEY,
  deployment_id INTEGER REFERENCES deployments (id),
  request_id    INTEGER REFERENCES requests (id),
  message       TEXT NOT NULL,
  reply         TEXT NOT NULL,
  rating        INTEGER CHECK (rating IN (-1, 1)),
  at            REAL NOT NULL
);

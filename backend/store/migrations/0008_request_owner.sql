-- The process that sent a request: what a dead one left in flight can be told from what a living one waits for.
ALTER TABLE requests ADD COLUMN owner TEXT;
CREATE INDEX requests_sent ON requests (id) WHERE state = 'sent';

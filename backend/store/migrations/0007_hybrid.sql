-- A hybrid campaign's local model ("ollama:MODEL[@host]"), and which campaign goes first at a provider.
ALTER TABLE campaigns ADD COLUMN local TEXT;
ALTER TABLE campaigns ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;

-- What a campaign spent is summed up for its viewers at every change: from this index alone.
CREATE INDEX requests_spent ON requests (campaign_id, state, prompt_tokens, completion_tokens, cost_usd);

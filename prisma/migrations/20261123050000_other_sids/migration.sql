-- Participants that know a session by a sid other than its id, found for each session that ends: where there are none,
-- the index is empty and costs nothing. And a column that nothing ever wrote goes: rules are told in the order of `version`.
--
-- Building the index reads session_clients and keeps its writers waiting meanwhile: about a second for each few million
-- rows. Dropping the column changes the catalogue alone. The version before works with both.

CREATE INDEX session_clients_named_otherwise ON session_clients (session_id, sid) WHERE sid <> session_id;

-- As of when it is called, not of when the statement around it began (it is volatile).
CREATE FUNCTION other_sids_of(text) RETURNS text[] LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN ARRAY(SELECT DISTINCT c.sid FROM session_clients c WHERE c.session_id = $1 AND c.sid <> c.session_id);
END $$;

-- A commit comes on the stream again where a participant became known by another sid after it. Readers never see a
-- position taken back, so it is a second row. Rewrites a table of some hundred thousand rows at most: a second.
ALTER TABLE stream_entries DROP CONSTRAINT stream_entries_pkey;
ALTER TABLE stream_entries ADD COLUMN id bigserial NOT NULL CONSTRAINT stream_entries_pkey PRIMARY KEY;
DROP INDEX stream_entries_unpositioned;
CREATE INDEX stream_entries_unpositioned ON stream_entries (id) WHERE position IS NULL;

ALTER TABLE cutoff_rules DROP COLUMN position;

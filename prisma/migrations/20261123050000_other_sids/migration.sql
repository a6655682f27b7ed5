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

ALTER TABLE cutoff_rules DROP COLUMN position;

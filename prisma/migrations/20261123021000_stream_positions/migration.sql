-- The stream's positions over Postgres: what guards follow over HTTP.
--
-- Ids are given out before their transactions commit, so a reader with a cursor over them would miss what commits late.
-- Each commit therefore leaves a row here (a trigger, so that no writer can forget it), and positions are given later,
-- by one at a time, to rows that are committed: whoever has read up to a position has missed none below it. A table of
-- its own, because routing and enforcing hold rows of commits, and giving positions must neither wait for them nor make
-- them skip a row. Creating the trigger waits for open writers of commits, and they for it: milliseconds.
CREATE SEQUENCE stream_position_seq;
CREATE TABLE stream_entries (
  commit_id bigint NOT NULL,
  position  bigint,
  CONSTRAINT stream_entries_pkey PRIMARY KEY (commit_id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE UNIQUE INDEX stream_entries_position_key ON stream_entries (position);
CREATE INDEX stream_entries_unpositioned ON stream_entries (commit_id) WHERE position IS NULL;
ALTER SEQUENCE stream_position_seq OWNED BY stream_entries.position;

CREATE FUNCTION put_on_stream() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO stream_entries (commit_id) VALUES (NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER commits_are_put_on_stream AFTER INSERT ON commits FOR EACH ROW EXECUTE FUNCTION put_on_stream();

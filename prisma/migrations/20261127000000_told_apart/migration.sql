-- The stream and the caches are two channels, and one that is away must not keep the other waiting: `streamed_at` says
-- that a commit is on the stream where it is not enforced yet, because its cache keys could not be deleted. Where it is
-- enforced it is on the stream anyway, so nothing has to be filled in.
--
-- And a commit that is told again, because a participant became known by another sid after it, is found by when that was
-- (`retold_at`), and `tellings` counts, so that nobody records the one telling as the other.
--
-- Columns without a value of their own change the catalogue alone. Building the indexes reads commits and keeps its
-- writers waiting meanwhile: about a second for each few million rows. The version before works with all of it.

ALTER TABLE commits
  ADD COLUMN streamed_at timestamptz(3),
  ADD COLUMN tellings integer NOT NULL DEFAULT 1,
  ADD COLUMN retold_at timestamptz(3);
CREATE INDEX commits_unstreamed ON commits (id) WHERE enforced_at IS NULL AND streamed_at IS NULL;
CREATE INDEX commits_retold ON commits (retold_at, id) WHERE retold_at IS NOT NULL;

-- Those that came on the stream again before this. When that was is not known; now is late enough.
UPDATE commits SET tellings = 2, retold_at = clock_timestamp()
WHERE id IN (SELECT commit_id FROM stream_entries GROUP BY commit_id HAVING count(*) > 1);

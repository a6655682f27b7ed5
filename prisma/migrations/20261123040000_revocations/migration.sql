-- Revocations: many sessions ended by one decision, in slices, with counts that are exact at every moment.
--
-- The new tables are empty. Columns without a default change the catalogue alone. The new indexes of sessions, commits,
-- deliveries and session_clients read those tables and keep their writers waiting meanwhile: about a second for each
-- million rows. The version before works with all of it: what it commits belongs to no revocation.

CREATE TYPE revocation_state AS ENUM ('running', 'paused', 'cancelled', 'done');
CREATE TYPE notification_state AS ENUM ('running', 'paused', 'cancelled');

CREATE TABLE revocations (
  id                    uuid NOT NULL,
  state                 revocation_state NOT NULL DEFAULT 'running',
  notifications         notification_state NOT NULL DEFAULT 'running',
  mode                  termination_mode NOT NULL,
  -- Null where nobody was asked for one: a single log-out that does not wait for its commit.
  reason                text,
  ticket                text,
  actor_issuer          text NOT NULL,
  actor_subject         text NOT NULL,
  -- Whatever the filter says, nothing beyond these is reached: the whole instance, or these organizations.
  issuers               text[] NOT NULL,
  instance              boolean NOT NULL,
  organizations         text[] NOT NULL,
  filter                jsonb NOT NULL,
  exclude               jsonb NOT NULL,
  containment           text NOT NULL,
  -- What was born later lives. A whole second.
  cutoff_time           timestamptz(3) NOT NULL,
  deliveries_per_second integer,
  -- What matched when it was accepted, counted up to a bound.
  expected              bigint NOT NULL,
  expected_exact        boolean NOT NULL,
  created_at            timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  changed_at            timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  -- The pass under way, from 1; the last one found nothing. 0: slices are still to be made.
  pass                  integer NOT NULL DEFAULT 0,
  committed_at          timestamptz(3),
  enforced_at           timestamptz(3),
  CONSTRAINT revocations_pkey PRIMARY KEY (id),
  CONSTRAINT revocations_reach_somewhere CHECK (instance = (cardinality(organizations) = 0)),
  CONSTRAINT revocations_containment_known CHECK (containment IN ('rules', 'rows')),
  CONSTRAINT revocations_done_is_committed CHECK ((state = 'done') = (committed_at IS NOT NULL))
) WITH (fillfactor = 50);
-- Who is to be gone on with; and those whose last clocks are still to be read.
CREATE INDEX revocations_running ON revocations (id) WHERE state = 'running';
CREATE INDEX revocations_unenforced ON revocations (id) WHERE enforced_at IS NULL;
-- Lists, newest first: whoever's own, and those of organizations.
CREATE INDEX revocations_actor_issuer_actor_subject_id_idx ON revocations (actor_issuer, actor_subject, id);
CREATE INDEX revocations_of_organizations ON revocations (id) WHERE NOT instance;

-- A stretch of one index that a revocation walks, from start to until, with where its pass has come to. A chunk holds this
-- row, so that chunks of one slice come one after the other, and those of others beside it.
CREATE TABLE revocation_slices (
  revocation_id uuid NOT NULL,
  number        integer NOT NULL,
  -- The index that is walked. A key is the number of one of its values, and then its further columns.
  walks         text NOT NULL,
  start_key     text[] NOT NULL,
  until_key     text[] NOT NULL,
  at_key        text[] NOT NULL,
  pass          integer NOT NULL DEFAULT 1,
  ended         boolean NOT NULL DEFAULT false,
  -- What this pass met that was live, ended or not: 0 in every slice proves that nothing is left.
  found         bigint NOT NULL DEFAULT 0,
  matched       bigint NOT NULL DEFAULT 0,
  terminated    bigint NOT NULL DEFAULT 0,
  CONSTRAINT revocation_slices_pkey PRIMARY KEY (revocation_id, number),
  CONSTRAINT revocation_slices_revocation_id_fkey FOREIGN KEY (revocation_id) REFERENCES revocations (id) ON DELETE CASCADE ON UPDATE NO ACTION
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

-- For chunks: whether a revocation runs by what is committed when this is called, not when the statement around it began
-- (it is volatile, so its query has a snapshot of its own). A chunk calls it when it holds its slice, and whoever steers
-- takes all slices before that commits: so either the chunk sees it, or whoever steers waits for the chunk.
CREATE FUNCTION revocation_runs(uuid) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN EXISTS (SELECT FROM revocations WHERE id = $1 AND state = 'running');
END $$;

-- Who steered it, and when.
CREATE TABLE revocation_events (
  position      bigserial NOT NULL,
  revocation_id uuid NOT NULL,
  type          text NOT NULL,
  actor_issuer  text,
  actor_subject text,
  created_at    timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT revocation_events_pkey PRIMARY KEY (position),
  CONSTRAINT revocation_events_revocation_id_fkey FOREIGN KEY (revocation_id) REFERENCES revocations (id) ON DELETE CASCADE ON UPDATE NO ACTION
);
CREATE INDEX revocation_events_revocation_id_idx ON revocation_events (revocation_id);

-- A repeat of what was accepted under the same key is answered with the same revocation.
CREATE TABLE idempotency_keys (
  issuer        text NOT NULL,
  subject       text NOT NULL,
  route         text NOT NULL,
  key           text NOT NULL,
  request_hash  bytea NOT NULL,
  revocation_id uuid NOT NULL,
  created_at    timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT idempotency_keys_pkey PRIMARY KEY (issuer, subject, route, key)
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);

-- Each receiver's outcome, by revocation: kept by the statements that plan and by a trigger for whatever comes of
-- deliveries later, so that it is exact at every moment and nobody counts deliveries.
CREATE TABLE revocation_outcomes (
  revocation_id uuid NOT NULL,
  receiver_id   text COLLATE "C" NOT NULL,
  total         bigint NOT NULL DEFAULT 0,
  pending       bigint NOT NULL DEFAULT 0,
  acknowledged  bigint NOT NULL DEFAULT 0,
  failed        bigint NOT NULL DEFAULT 0,
  moot          bigint NOT NULL DEFAULT 0,
  -- When it acknowledged last.
  acknowledged_at timestamptz(3),
  CONSTRAINT revocation_outcomes_pkey PRIMARY KEY (revocation_id, receiver_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

-- A revocation's notifications: who plans, holds or releases them locks this row, so that one at a time does, and sees
-- what the one before did. A row of its own, so that neither those who end sessions nor those who steer ever wait for it.
CREATE TABLE revocation_notifications (
  revocation_id uuid NOT NULL,
  -- The steering that its deliveries were last brought in line with.
  applied       notification_state NOT NULL DEFAULT 'running',
  -- When its next delivery comes in line, where they are paced.
  paced_to      timestamptz(3),
  -- When its end was handed on: nobody waits any more, and webhooks are told of it.
  ended_at      timestamptz(3),
  CONSTRAINT revocation_notifications_pkey PRIMARY KEY (revocation_id),
  CONSTRAINT revocation_notifications_revocation_id_fkey FOREIGN KEY (revocation_id) REFERENCES revocations (id) ON DELETE CASCADE ON UPDATE NO ACTION
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE FUNCTION begin_revocation_notifications() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO revocation_notifications (revocation_id) VALUES (NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER revocations_have_notifications AFTER INSERT ON revocations FOR EACH ROW EXECUTE FUNCTION begin_revocation_notifications();

-- A revocation was steered or has ended, and its notifications are not yet in line with that. Written by a trigger, so that no
-- writer can forget it; removed by whoever has brought them in line. Inserting waits for nobody.
CREATE TABLE revocation_turns (
  revocation_id uuid NOT NULL,
  position      bigserial NOT NULL,
  CONSTRAINT revocation_turns_pkey PRIMARY KEY (revocation_id, position),
  CONSTRAINT revocation_turns_revocation_id_fkey FOREIGN KEY (revocation_id) REFERENCES revocations (id) ON DELETE CASCADE ON UPDATE NO ACTION
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE FUNCTION put_revocation_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO revocation_turns (revocation_id) VALUES (NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER revocations_take_turns AFTER UPDATE ON revocations FOR EACH ROW
  WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.notifications IS DISTINCT FROM NEW.notifications) EXECUTE FUNCTION put_revocation_turn();

ALTER TABLE commits ADD COLUMN revocation_id uuid;
CREATE INDEX commits_by_revocation ON commits (revocation_id, id) WHERE revocation_id IS NOT NULL;
-- Log-outs are routed by a claim of their own, so that none waits behind a revocation.
DROP INDEX commits_unrouted;
CREATE INDEX commits_unrouted ON commits (id) WHERE routed_at IS NULL AND revocation_id IS NULL;
CREATE INDEX commits_of_revocations_unrouted ON commits (revocation_id, id) WHERE routed_at IS NULL AND revocation_id IS NOT NULL;

-- `event` is what is told. Of a revocation itself there is no session, and the sid is its id.
ALTER TABLE deliveries
  ADD COLUMN revocation_id uuid,
  ADD COLUMN event text NOT NULL DEFAULT 'session.terminated',
  -- It stands for all sessions that the revocation ended of this user at this client: the session is empty, and the sid
  -- the revocation's id and the sub, so that there is one. Its last outcome is `waiting` while the user has live sessions.
  ADD COLUMN of_user boolean NOT NULL DEFAULT false,
  -- It was paced or held back until then, so its horizon begins there.
  ADD COLUMN held_until timestamptz(3);
CREATE INDEX deliveries_of_revocations ON deliveries (revocation_id, state, id) WHERE revocation_id IS NOT NULL;
-- What a revocation holds back: while it is paused, and users who have live sessions still.
CREATE INDEX deliveries_held ON deliveries (revocation_id, id) WHERE due_at = 'infinity' AND state = 'pending';
-- What is due, of log-outs and of revocations apart: a drain reads the log-outs first, however much of a revocation is due.
DROP INDEX deliveries_due;
CREATE INDEX deliveries_due ON deliveries (receiver_id, due_at, id) WHERE state = 'pending' AND revocation_id IS NULL;
CREATE INDEX deliveries_of_revocations_due ON deliveries (receiver_id, due_at, id) WHERE state = 'pending' AND revocation_id IS NOT NULL;
-- A delivery has a receiver: whoever plans one holds the receiver (FOR KEY SHARE), and with a receiver all that is planned for
-- it goes. As a foreign key that was checked row by row, which was nearly half of what planning cost. (The version before
-- does not hold receivers; what it plans for one that is deleted at that moment is never told, and is pruned with the rest.)
ALTER TABLE deliveries DROP CONSTRAINT deliveries_receiver_id_fkey;
CREATE FUNCTION forget_deliveries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM deliveries WHERE receiver_id = OLD.id;
  RETURN NULL;
END $$;
CREATE TRIGGER receivers_take_deliveries_along AFTER DELETE ON receivers FOR EACH ROW EXECUTE FUNCTION forget_deliveries();
-- Planning is the cheaper the fewer indexes there are. Nothing asks by commit; and a session's deliveries are found by the key
-- that keeps them single, once it begins with the session.
DROP INDEX deliveries_commit_id_idx;
CREATE UNIQUE INDEX deliveries_session_id_receiver_id_client_id_sid_key ON deliveries (session_id, receiver_id, client_id, sid);
DROP INDEX deliveries_receiver_id_session_id_client_id_sid_key;
DROP INDEX deliveries_session_id_idx;

-- Attempts are counted for the revocation that ended the session, or that set the rule.
ALTER TABLE dead_uses ADD COLUMN revocation_id uuid;
CREATE INDEX dead_uses_of_revocations ON dead_uses (revocation_id) WHERE revocation_id IS NOT NULL;

-- What a revocation can walk: live sessions of an organization, of a user, of an issuer, by expiry, so that what has
-- expired long ago is never met; those of a device, of an address, born in a stretch of time, of a client.
DROP INDEX sessions_resource_owner_issuer_idx;
CREATE INDEX sessions_resource_owner_expires_at_id_idx ON sessions (resource_owner, expires_at, id);
CREATE INDEX sessions_issuer_expires_at_id_idx ON sessions (issuer, expires_at, id);
CREATE INDEX sessions_issuer_born_id_idx ON sessions (issuer, born, id);
CREATE INDEX sessions_ip_id_idx ON sessions (ip, id);
DROP INDEX sessions_fingerprint_id_idx;
CREATE INDEX sessions_fingerprint_id_id_idx ON sessions (fingerprint_id, id);
DROP INDEX sessions_issuer_user_id_idx;
CREATE INDEX sessions_issuer_user_id_id_idx ON sessions (issuer, user_id, id);
DROP INDEX session_clients_client_id_idx;
CREATE INDEX session_clients_client_id_session_id_sid_idx ON session_clients (client_id, session_id, sid);

-- Outcomes are locked in the order of their keys, after whatever else a statement holds.
CREATE FUNCTION keep_revocation_outcomes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM after_rows WHERE revocation_id IS NOT NULL) THEN
    RETURN NULL;
  END IF;
  PERFORM FROM revocation_outcomes o
  WHERE (o.revocation_id, o.receiver_id) IN (
    SELECT revocation_id, receiver_id FROM (
      SELECT revocation_id, receiver_id, state, 1 AS n FROM after_rows WHERE revocation_id IS NOT NULL
      UNION ALL SELECT revocation_id, receiver_id, state, -1 FROM before_rows WHERE revocation_id IS NOT NULL
    ) moved GROUP BY revocation_id, receiver_id, state HAVING sum(n) <> 0)
  ORDER BY o.revocation_id, o.receiver_id FOR NO KEY UPDATE;
  -- A retry moves nothing.
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  UPDATE revocation_outcomes o SET
    pending = o.pending + c.pending, acknowledged = o.acknowledged + c.acknowledged, failed = o.failed + c.failed, moot = o.moot + c.moot,
    acknowledged_at = greatest(o.acknowledged_at, m.acknowledged_at)
  FROM (
    SELECT revocation_id, receiver_id, sum(n) FILTER (WHERE state = 'pending') AS pending, sum(n) FILTER (WHERE state = 'acknowledged') AS acknowledged,
      sum(n) FILTER (WHERE state = 'failed') AS failed, sum(n) FILTER (WHERE state = 'moot') AS moot,
      max(done_at) FILTER (WHERE state = 'acknowledged' AND n = 1) AS acknowledged_at
    FROM (
      SELECT revocation_id, receiver_id, state, done_at, 1 AS n FROM after_rows
      UNION ALL SELECT revocation_id, receiver_id, state, done_at, -1 FROM before_rows
    ) moved WHERE revocation_id IS NOT NULL GROUP BY revocation_id, receiver_id
  ) m CROSS JOIN LATERAL (
    SELECT coalesce(m.pending, 0) AS pending, coalesce(m.acknowledged, 0) AS acknowledged, coalesce(m.failed, 0) AS failed, coalesce(m.moot, 0) AS moot
  ) c
  WHERE o.revocation_id = m.revocation_id AND o.receiver_id = m.receiver_id
    AND (c.pending <> 0 OR c.acknowledged <> 0 OR c.failed <> 0 OR c.moot <> 0);
  RETURN NULL;
END $$;
CREATE TRIGGER deliveries_keep_outcomes AFTER UPDATE ON deliveries
  REFERENCING OLD TABLE AS before_rows NEW TABLE AS after_rows FOR EACH STATEMENT EXECUTE FUNCTION keep_revocation_outcomes();

-- What was still to be told to a receiver that is deleted is moot; what was told stays counted, also when it is pruned.
CREATE FUNCTION settle_revocation_outcomes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM gone_rows WHERE revocation_id IS NOT NULL AND state = 'pending') THEN
    RETURN NULL;
  END IF;
  PERFORM FROM revocation_outcomes o
  WHERE (o.revocation_id, o.receiver_id) IN (SELECT DISTINCT revocation_id, receiver_id FROM gone_rows WHERE revocation_id IS NOT NULL AND state = 'pending')
  ORDER BY o.revocation_id, o.receiver_id FOR NO KEY UPDATE;
  UPDATE revocation_outcomes o SET pending = o.pending - g.n, moot = o.moot + g.n
  FROM (SELECT revocation_id, receiver_id, count(*) AS n FROM gone_rows WHERE revocation_id IS NOT NULL AND state = 'pending' GROUP BY revocation_id, receiver_id) g
  WHERE o.revocation_id = g.revocation_id AND o.receiver_id = g.receiver_id;
  RETURN NULL;
END $$;
CREATE TRIGGER deliveries_settle_outcomes AFTER DELETE ON deliveries
  REFERENCING OLD TABLE AS gone_rows FOR EACH STATEMENT EXECUTE FUNCTION settle_revocation_outcomes();

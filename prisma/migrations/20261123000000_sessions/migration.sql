-- The first tables: sessions and their events, the outbox, receivers and deliveries, signing keys.
-- Everything is new, so nothing waits for a lock.
--
-- Ids are COLLATE "C": one order for every process that locks rows in id order, and cheap comparisons.
-- sessions has room in its pages (fillfactor) and no index over what a termination changes, so ending
-- a session is a heap-only update.

CREATE TYPE session_state AS ENUM ('active', 'terminated');
CREATE TYPE termination_mode AS ENUM ('logout', 'revoke');
CREATE TYPE receiver_type AS ENUM ('backchannel_logout', 'webhook');
CREATE TYPE subject_form AS ENUM ('sid', 'sub', 'both');
CREATE TYPE delivery_state AS ENUM ('pending', 'acknowledged', 'failed', 'moot');
CREATE TYPE signing_key_state AS ENUM ('next', 'current', 'retired');

CREATE TABLE sessions (
  id                text COLLATE "C" NOT NULL,
  issuer            text NOT NULL,
  user_id           text NOT NULL,
  resource_owner    text NOT NULL,
  state             session_state NOT NULL DEFAULT 'active',
  sequence          bigint NOT NULL,
  token_hash        bytea,
  registration_hash bytea NOT NULL,
  creator_issuer    text NOT NULL,
  creator_subject   text NOT NULL,
  fingerprint_id    text,
  ip                inet,
  user_agent        jsonb,
  metadata          jsonb NOT NULL DEFAULT '{}',
  cache_keys        text[] NOT NULL DEFAULT '{}',
  born              timestamptz(3) NOT NULL,
  created_at        timestamptz(3) NOT NULL,
  change_date       timestamptz(3) NOT NULL,
  expires_at        timestamptz(3) NOT NULL,
  terminated_at     timestamptz(3),
  CONSTRAINT sessions_pkey PRIMARY KEY (id),
  CONSTRAINT sessions_terminated_has_date CHECK ((state = 'terminated') = (terminated_at IS NOT NULL))
) WITH (fillfactor = 70);

CREATE INDEX sessions_issuer_user_id_idx ON sessions (issuer, user_id);
CREATE INDEX sessions_resource_owner_issuer_idx ON sessions (resource_owner, issuer);
CREATE INDEX sessions_created_at_id_idx ON sessions (created_at, id);
CREATE INDEX sessions_fingerprint_id_idx ON sessions (fingerprint_id);
CREATE INDEX sessions_creator_issuer_creator_subject_idx ON sessions (creator_issuer, creator_subject);

-- A terminated session never changes again and never comes back, whoever writes: its row carries the
-- details of the first termination for every later question.
CREATE FUNCTION refuse_change_after_termination() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'session % is terminated and cannot change', OLD.id USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER sessions_termination_is_final BEFORE UPDATE ON sessions
  FOR EACH ROW WHEN (OLD.state = 'terminated') EXECUTE FUNCTION refuse_change_after_termination();

CREATE TABLE session_clients (
  session_id text COLLATE "C" NOT NULL,
  client_id  text NOT NULL,
  sid        text NOT NULL,
  sub        text NOT NULL,
  CONSTRAINT session_clients_pkey PRIMARY KEY (session_id, client_id, sid),
  CONSTRAINT session_clients_session_id_fkey FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE ON UPDATE NO ACTION
);
CREATE INDEX session_clients_client_id_idx ON session_clients (client_id);
CREATE INDEX session_clients_sid_idx ON session_clients (sid);

CREATE TABLE session_events (
  position       bigserial NOT NULL,
  session_id     text COLLATE "C" NOT NULL,
  sequence       bigint NOT NULL,
  type           text NOT NULL,
  version        integer NOT NULL DEFAULT 1,
  payload        jsonb NOT NULL DEFAULT '{}',
  mode           termination_mode,
  reason         text,
  actor_issuer   text NOT NULL,
  actor_subject  text NOT NULL,
  revocation_id  uuid,
  commit_id      bigint,
  resource_owner text NOT NULL,
  created_at     timestamptz(3) NOT NULL,
  CONSTRAINT session_events_pkey PRIMARY KEY (position)
);
CREATE UNIQUE INDEX session_events_session_id_sequence_key ON session_events (session_id, sequence);
CREATE INDEX session_events_by_commit ON session_events (commit_id) WHERE commit_id IS NOT NULL;

CREATE TABLE commits (
  id                bigserial NOT NULL,
  sessions          integer NOT NULL,
  committed_at      timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  enforced_at       timestamptz(3),
  enforced_again_at timestamptz(3),
  routed_at         timestamptz(3),
  CONSTRAINT commits_pkey PRIMARY KEY (id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
-- Claimed by state, never by a cursor over ids: a lower id may commit later.
CREATE INDEX commits_unrouted ON commits (id) WHERE routed_at IS NULL;
CREATE INDEX commits_unenforced ON commits (id) WHERE enforced_at IS NULL;
CREATE INDEX commits_not_enforced_again ON commits (enforced_at) WHERE enforced_again_at IS NULL;

CREATE TABLE receivers (
  id                   text COLLATE "C" NOT NULL,
  type                 receiver_type NOT NULL,
  url                  text NOT NULL,
  issuer               text,
  client_id            text,
  resource_owner       text,
  subject              subject_form NOT NULL DEFAULT 'sid',
  alg                  text NOT NULL DEFAULT 'RS256',
  events               text[] NOT NULL DEFAULT '{}',
  max_concurrency      integer NOT NULL DEFAULT 8,
  rate_per_second      integer,
  enabled              boolean NOT NULL DEFAULT true,
  created_at           timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  updated_at           timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  drained_by           uuid,
  drained_until        timestamptz(3),
  consecutive_failures integer NOT NULL DEFAULT 0,
  broken_until         timestamptz(3),
  last_success_at      timestamptz(3),
  last_failure_at      timestamptz(3),
  CONSTRAINT receivers_pkey PRIMARY KEY (id)
);
CREATE INDEX receivers_issuer_client_id_idx ON receivers (issuer, client_id);

CREATE TABLE deliveries (
  id            bigserial NOT NULL,
  receiver_id   text COLLATE "C" NOT NULL,
  session_id    text COLLATE "C" NOT NULL,
  client_id     text NOT NULL,
  sid           text NOT NULL,
  sub           text NOT NULL,
  issuer        text NOT NULL,
  commit_id     bigint,
  state         delivery_state NOT NULL DEFAULT 'pending',
  attempts      integer NOT NULL DEFAULT 0,
  created_at    timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  due_at        timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  lease         uuid,
  moot_at       timestamptz(3) NOT NULL,
  done_at       timestamptz(3),
  last_outcome  text,
  last_status   integer,
  last_answer   text,
  last_tried_at timestamptz(3),
  CONSTRAINT deliveries_pkey PRIMARY KEY (id),
  CONSTRAINT deliveries_receiver_id_fkey FOREIGN KEY (receiver_id) REFERENCES receivers (id) ON DELETE CASCADE ON UPDATE NO ACTION
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE UNIQUE INDEX deliveries_receiver_id_session_id_client_id_sid_key ON deliveries (receiver_id, session_id, client_id, sid);
CREATE INDEX deliveries_commit_id_idx ON deliveries (commit_id);
CREATE INDEX deliveries_session_id_idx ON deliveries (session_id);
CREATE INDEX deliveries_due ON deliveries (receiver_id, due_at) WHERE state = 'pending';
CREATE INDEX deliveries_by_state ON deliveries (receiver_id, state, id);

CREATE TABLE signing_keys (
  id           text COLLATE "C" NOT NULL,
  issuer       text NOT NULL,
  alg          text NOT NULL,
  state        signing_key_state NOT NULL,
  public_jwk   jsonb NOT NULL,
  private_key  text NOT NULL,
  imported     boolean NOT NULL DEFAULT false,
  created_at   timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  activated_at timestamptz(3),
  retired_at   timestamptz(3),
  CONSTRAINT signing_keys_pkey PRIMARY KEY (id)
);
CREATE INDEX signing_keys_issuer_alg_state_idx ON signing_keys (issuer, alg, state);
-- One key signs for an issuer and an algorithm at any moment, and one waits its turn.
CREATE UNIQUE INDEX signing_keys_one_current ON signing_keys (issuer, alg) WHERE state = 'current';
CREATE UNIQUE INDEX signing_keys_one_next ON signing_keys (issuer, alg) WHERE state = 'next';

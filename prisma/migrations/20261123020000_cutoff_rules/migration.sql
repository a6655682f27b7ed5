-- Cutoff rules, and the count of attempts to use what is dead. Both tables are new, so nothing waits for a lock.

CREATE SEQUENCE cutoff_rules_version_seq;

-- "Of this issuer, this organization, this user, whatever was born up to the cutoff is dead." What a rule does not
-- name is null. A rule never changes; it goes when its retention is over.
CREATE TABLE cutoff_rules (
  id               uuid NOT NULL,
  issuer           text NOT NULL,
  resource_owner   text,
  user_id          text,
  cutoff           timestamptz(3) NOT NULL,
  exclude_users    text[] NOT NULL DEFAULT '{}',
  exclude_sessions text[] NOT NULL DEFAULT '{}',
  reason           text NOT NULL,
  actor_issuer     text NOT NULL,
  actor_subject    text NOT NULL,
  revocation_id    uuid,
  created_at       timestamptz(3) NOT NULL,
  expires_at       timestamptz(3) NOT NULL,
  version          bigint NOT NULL,
  position         bigint,
  CONSTRAINT cutoff_rules_pkey PRIMARY KEY (id)
);
-- The four things a rule can name are looked up as four keys.
CREATE INDEX cutoff_rules_issuer_resource_owner_user_id_idx ON cutoff_rules (issuer, resource_owner, user_id);
-- Counts up in the order of commits: who has read up to a version has missed none below it.
CREATE UNIQUE INDEX cutoff_rules_version_key ON cutoff_rules (version);
CREATE INDEX cutoff_rules_revocation_id_idx ON cutoff_rules (revocation_id);
CREATE INDEX cutoff_rules_expires_at_idx ON cutoff_rules (expires_at);
ALTER SEQUENCE cutoff_rules_version_seq OWNED BY cutoff_rules.version;

-- A rule by which a session is dead, or null. For writers: it sees what is committed when it is called, not when the
-- statement around it began (it is volatile, so each of its statements has a snapshot of its own). Until their
-- transaction ends writers share a lock; who has once held it alone after a rule was committed knows that every
-- writer who did not see that rule has ended.
CREATE FUNCTION cutoff_rule_of(text, text, text, text, timestamptz) RETURNS uuid LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtext('curfew'), hashtext('cutoff rules'));
  RETURN (
    SELECT r.id FROM (
      SELECT * FROM cutoff_rules WHERE issuer = $1 AND resource_owner IS NULL AND user_id IS NULL
      UNION ALL SELECT * FROM cutoff_rules WHERE issuer = $1 AND resource_owner = $2 AND user_id IS NULL
      UNION ALL SELECT * FROM cutoff_rules WHERE issuer = $1 AND resource_owner IS NULL AND user_id = $3
      UNION ALL SELECT * FROM cutoff_rules WHERE issuer = $1 AND resource_owner = $2 AND user_id = $3
    ) r
    WHERE r.cutoff >= $5 AND $3 <> ALL (r.exclude_users) AND $4 <> ALL (r.exclude_sessions)
    LIMIT 1);
END $$;

-- How often what is dead was still tried: a terminated session (its id) or what a rule killed (the rule's id).
CREATE TABLE dead_uses (
  issuer    text NOT NULL,
  target    text NOT NULL,
  target_id text COLLATE "C" NOT NULL,
  uses      bigint NOT NULL,
  first_at  timestamptz(3) NOT NULL,
  last_at   timestamptz(3) NOT NULL,
  CONSTRAINT dead_uses_pkey PRIMARY KEY (target, target_id, issuer),
  CONSTRAINT dead_uses_target_known CHECK (target IN ('session', 'rule'))
);
CREATE INDEX dead_uses_last_at_idx ON dead_uses (last_at);

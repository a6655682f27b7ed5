-- Webhooks have secrets, receivers may say that they are gone, and dead letters can be sent again.
--
-- Columns without a default change the catalogue alone: receivers and deliveries are locked for an instant. The
-- constraint and the index read receivers, of which there are thousands at most: milliseconds. What runs the version
-- before goes on: it knows none of the columns and makes no webhooks.

ALTER TABLE receivers
  ADD COLUMN secret text,
  ADD COLUMN secret_previous text,
  ADD COLUMN secret_previous_until timestamptz(3),
  ADD COLUMN gone_at timestamptz(3);
ALTER TABLE receivers ADD CONSTRAINT receivers_webhook_has_secret CHECK ((type = 'webhook') = (secret IS NOT NULL));
-- Routing asks for the webhooks of a session's issuer and organization.
CREATE INDEX receivers_webhooks ON receivers (issuer, resource_owner) WHERE type = 'webhook';

-- The horizon of a delivery that is sent again begins anew.
ALTER TABLE deliveries ADD COLUMN redelivered_at timestamptz(3);

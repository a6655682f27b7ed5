-- A drain reads on from (due_at, id); with the id in the index Postgres reads exactly that stretch, in order, and no longer
-- sorts all that a receiver has pending for each slice.
--
-- Building it reads deliveries once and keeps writers of that table waiting meanwhile: about a second for each ten
-- million rows. The version before works with it as it is.

DROP INDEX deliveries_due;
CREATE INDEX deliveries_due ON deliveries (receiver_id, due_at, id) WHERE state = 'pending';

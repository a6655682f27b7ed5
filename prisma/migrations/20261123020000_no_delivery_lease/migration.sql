-- A drain holds its receiver, so a delivery needs no lease of its own, and nothing ever wrote one.
--
-- Changes the catalogue alone: deliveries are locked for an instant. The version before never names the column.

ALTER TABLE deliveries DROP COLUMN lease;

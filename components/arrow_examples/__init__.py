"""Examples that are there twice: as TFRecords for whom it may concern, as Arrow's record batches for the next steps."""

"""A file of the log -> its rows, as Arrow record batches of bounded size. A module for each format."""

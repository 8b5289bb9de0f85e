"""Imports the curated schema, and notices when it was edited."""

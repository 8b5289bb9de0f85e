"""Pushes a blessed model to the serving folder, whole or not at all."""

ROLLED_BACK = "rolled_back"  # property of a Model that a rollback took out of service: when, ISO 8601

"""Pushes a blessed model to the serving folder, whole or not at all."""

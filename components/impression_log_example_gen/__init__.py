"""Impression logs -> Examples; bad rows are put aside."""

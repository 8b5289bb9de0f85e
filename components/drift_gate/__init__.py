"""Measures how far the examples have moved, from the previous run's and from training to eval, and can stop a run."""

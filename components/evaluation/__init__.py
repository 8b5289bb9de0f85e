"""Metrics of click-through rates for TFMA, with intervals and paired differences, and what the Evaluator found."""

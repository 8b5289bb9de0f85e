"""Stops a run whose examples have anomalies; ExampleValidator only reports them."""

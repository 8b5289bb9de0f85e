"""The peers' training speed: `python -m benchmarks.speed_peers.NAME ARRAYS.npz BATCH VARIANT` in their environments.

From arrays in memory, two threads, the DeepFM of `benchmarks/quality_peers`. Prints JSON: `rows_per_second` of the
steps after the first ones, `peak_rss_mb`. Variants: `shipped`, and what a user can do by hand about the table's
gradient.
"""

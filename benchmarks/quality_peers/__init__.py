"""The peers' DeepFM on the arrays of `benchmarks/quality_data.py`, each run in its own environment.

`python -m benchmarks.quality_peers.NAME ARRAYS.npz SEED SCORES.npy` trains for three epochs and writes the eval rows'
click-through rates. All have dim 8, a tower (64, 32) without dropout, Adam at 1e-3, batches of 1024, one thread, and
each library's own regularization and initialization where the module does not say otherwise.
"""

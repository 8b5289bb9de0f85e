"""The DeepFM model, its training and its export."""

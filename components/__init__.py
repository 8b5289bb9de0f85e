"""TFX components of our own, one folder each."""

"""Proves that an exported model can be served, in a process that has nothing but TensorFlow."""

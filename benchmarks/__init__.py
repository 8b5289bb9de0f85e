"""What is measured against other implementations."""

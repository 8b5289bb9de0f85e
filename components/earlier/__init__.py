"""What earlier runs have left that a run goes on from, or compares with."""

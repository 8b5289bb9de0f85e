"""TFX's Transform, which analyzes a day of the log once."""

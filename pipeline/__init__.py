"""The TFX pipeline: its configuration, its definition, its runners and the `ctr` command."""

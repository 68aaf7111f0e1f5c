"""What docs/model-family.md §7 says about any length, measured."""

"""Goldens: tiny checkpoints and what an independent program computed with them (README.md)."""

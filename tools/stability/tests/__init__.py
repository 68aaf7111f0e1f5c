"""Tests of the stability statements."""

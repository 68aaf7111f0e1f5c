"""Tests of the golden maker."""

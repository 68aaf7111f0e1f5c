"""Tests of the torch reference: `python -m unittest discover -s tools/reference/tests -t .`"""

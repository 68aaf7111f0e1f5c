"""Plots of what `./mesh bench` measured."""

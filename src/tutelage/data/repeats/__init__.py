"""Rows that repeat each other, and rows that hold what a model will be examined with."""

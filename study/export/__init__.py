"""Trained networks handed on: kept weights, and files that run without this suite."""

"""Completions in, pass@k out. Standard library and NumPy only."""

"""Prompts in, completions out, drawn from an exact law."""

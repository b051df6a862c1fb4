"""Tokenizer, prompts, sample records, filters and the input pipeline. NumPy only, no jax."""

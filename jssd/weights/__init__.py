"""Weights between disk and mesh: Hugging Face folders, GGUF files, checkpoints."""

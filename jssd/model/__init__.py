"""A decoder-only transformer: Llama, Qwen2 and Qwen3."""

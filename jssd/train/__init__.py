"""Batches in, better weights out: the loss, the optimizer, the step and the loop."""

"""What a config needs on hardware that is not attached: programs compiled, measured, timed."""

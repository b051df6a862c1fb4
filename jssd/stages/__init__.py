"""Stages: each reads folders, writes a folder, and can be run again safely.

The only room that knows all others.
"""

"""Kept paths: their contents have moved."""

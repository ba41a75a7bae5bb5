"""Typed questions about a text, a picture or a clip, answered by probabilities; nothing is generated."""

"""Tokens that may come next, guessed at little cost: who guesses, and when it pays."""

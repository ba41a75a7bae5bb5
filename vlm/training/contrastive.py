"""Contrastive alignment (being written)."""


class ContrastiveTask:
    pass

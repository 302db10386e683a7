"""Noise that is known: a chain starts from it."""


class Start:
    """A source of noise that gives the same states for every draw."""

    def __init__(self, x):
        self.x = x

    def start(self):
        return self.x

"""What is wrong with weights."""


class WeightsError(ValueError):
    """Weights cannot be found or read; one line that names the file, the reason and the remedy."""

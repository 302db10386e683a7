"""Training, validation and test parts; artificial long tails."""

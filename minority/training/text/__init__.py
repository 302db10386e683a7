"""Training small text-to-image models: an autoencoder, then a network that is told captions."""

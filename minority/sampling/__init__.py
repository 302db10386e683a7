"""Drawing samples: the loop, its settings, a batch, an edit, two stages."""

"""The search for the sampler settings with the best yield per evaluation."""

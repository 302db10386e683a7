"""The mathematics of a chain: schedule, denoiser contract, noise, estimate, minority metric and scores."""

"""The flow augment: plan, draw, score, evaluate, choose, publish."""

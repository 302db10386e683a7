"""The flow augment: plan, draw, score, judge, choose, publish."""

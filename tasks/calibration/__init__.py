"""The flow calibrate."""

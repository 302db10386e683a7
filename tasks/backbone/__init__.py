"""The flow that trains a backbone, and its model card."""

"""The flow that trains classifiers and compares them."""

"""Exact nearest neighbours, and what is computed from them."""

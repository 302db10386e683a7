"""Readers: one small file a set, and what decodes their files."""

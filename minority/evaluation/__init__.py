"""Figures of a set of images and of a backbone, with intervals."""

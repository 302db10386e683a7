"""Downstream: what a training set is worth to a classifier, measured so that a sceptic believes it.

An *arm* is one recipe of training: which images, drawn how, with which loss. Every arm gets the same network, the same
number of optimiser steps, the same augmentation and the same number of tuning trials; its settings are chosen on the
validation split, and the test split is looked at once.
"""

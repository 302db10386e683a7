"""The flows for sets of the reader folder; see flows/readers/__init__.py."""

from functools import partial

from flows.readers import flow_of_reader

__getattr__ = partial(flow_of_reader, reader="folder")

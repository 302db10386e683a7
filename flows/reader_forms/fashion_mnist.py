"""The flows for sets of the reader fashion_mnist; see flows/reader_forms/__init__.py."""

from functools import partial

from flows.reader_forms import flow_of_reader

__getattr__ = partial(flow_of_reader, reader="fashion_mnist")

"""The flows for sets of one reader: their form in Prefect has the settings of this reader alone.

A deployment names one by its entrypoint, e.g. `flows.readers:celeba.augment`. What runs is the flow itself.
"""

import inspect
from functools import lru_cache
from importlib import import_module
from typing import Annotated, Any, get_args

from prefect import Flow

from tasks.config.form import ConfigForm, OverridesForm
from tasks.config.sections import Reader


class _Flows:
    """The flows of a reader, each made when it is asked for."""

    def __init__(self, reader: str) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Flow[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return _narrowed(name, self._reader)


@lru_cache
def _narrowed(name: str, reader: str) -> Flow[..., Any]:
    """The flow of a module of its name, its form narrowed to a reader."""
    flow: Flow[..., Any] = getattr(import_module(f"flows.{name}"), name)
    signature = inspect.signature(flow)
    config, overrides = (signature.parameters[parameter] for parameter in ("config", "overrides"))
    kind, free = get_args(config.annotation)[0], get_args(overrides.annotation)[0]
    form = ConfigForm(kind, reader)
    narrowed = flow.with_options()
    narrowed.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            config.replace(annotation=Annotated[kind, form]),
            overrides.replace(annotation=Annotated[free, OverridesForm(form)]),
        ]
    )
    return narrowed


def __getattr__(name: str) -> _Flows:
    if name not in get_args(Reader):
        raise AttributeError(f"there is no reader {name}; there are {', '.join(get_args(Reader))}.")
    return _Flows(name)

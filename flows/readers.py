"""The flows for sets of one reader: their form in Prefect has the settings of this reader alone.

A deployment names one by its entrypoint, e.g. `flows.readers:celeba.augment`. What runs is the flow itself.
"""

import inspect
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
        flow: Flow[..., Any] = getattr(import_module(f"flows.{name}"), name)
        signature = inspect.signature(flow)
        config, overrides = (signature.parameters[parameter].annotation for parameter in ("config", "overrides"))
        form = ConfigForm(get_args(config)[0], self._reader)
        narrowed = flow.with_options()
        narrowed.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[
                signature.parameters["config"].replace(annotation=Annotated[get_args(config)[0], form]),
                signature.parameters["overrides"].replace(
                    annotation=Annotated[get_args(overrides)[0], OverridesForm(form)]
                ),
            ]
        )
        return narrowed


def __getattr__(name: str) -> _Flows:
    if name not in get_args(Reader):
        raise AttributeError(f"there is no reader {name}; there are {', '.join(get_args(Reader))}.")
    return _Flows(name)

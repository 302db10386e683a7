"""The flows for sets of one reader, a module each: their form in Prefect has the settings of this reader alone.

A deployment names one by its entrypoint, e.g. `flows.reader_forms.celeba:augment`. What runs is the flow itself.
"""

import inspect
from functools import lru_cache
from importlib import import_module
from typing import Annotated, Any, get_args

from prefect import Flow

from tasks.config.form import ConfigForm, OverridesForm

#: Name of a flow -> where it is.
_FLOWS = {
    "augment": "flows.augment:augment",
    "backbone": "flows.train_backbone:train_backbone",
    "adapt": "flows.adapt:adapt",
    "calibrate": "flows.calibrate:calibrate",
    "discover": "flows.discover:discover",
}


@lru_cache
def flow_of_reader(name: str, reader: str) -> Flow[..., Any]:
    """A flow whose form is narrowed to a reader.

    Args:
        name: The flow's.
        reader: The reader's.

    Raises:
        AttributeError: There is no such flow, or it reads no set.
    """
    if name not in _FLOWS:
        raise AttributeError(f"there is no flow {name} of a reader; there are {', '.join(_FLOWS)}.")
    module, attribute = _FLOWS[name].split(":")
    flow: Flow[..., Any] = getattr(import_module(module), attribute)
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

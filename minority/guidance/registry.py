"""Every guidance method there is, by its key: those of this folder, and those that installed packages bring along."""

import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from types import MappingProxyType, ModuleType

import minority.guidance
from minority.guidance.method import STAGES, Method

#: Entry points of this group name modules with methods.
GROUP = "minority.guidance"


def methods_of(module: ModuleType) -> list[type[Method]]:
    """The methods that a module defines: the classes with a key of their own."""
    return [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Method) and kind.__module__ == module.__name__ and "key" in vars(kind)
    ]


def _modules() -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(minority.guidance.__path__):
        if f"{GROUP}.{module.name}" != __name__:
            yield importlib.import_module(f"{GROUP}.{module.name}")
    for entry in importlib.metadata.entry_points(group=GROUP):
        yield entry.load()


def collect() -> dict[str, type[Method]]:
    """The methods by key, in the order of what they change.

    Raises:
        ValueError: Two methods have one key.
    """
    methods: dict[str, type[Method]] = {}
    for kind in (kind for module in _modules() for kind in methods_of(module)):
        if methods.setdefault(kind.key, kind) is not kind:
            raise ValueError(
                f"two guidance methods have the key {kind.key}: {methods[kind.key].__module__} and {kind.__module__}; "
                "rename one."
            )
    return dict(sorted(methods.items(), key=lambda entry: (STAGES.index(entry[1].stage), entry[0])))


#: The methods by key, in the order of what they change: the start of the chain first.
METHODS: Mapping[str, type[Method]] = MappingProxyType(collect())

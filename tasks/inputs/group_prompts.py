"""From the groups of a set to the prompts of a text-to-image backbone."""

import string
from collections.abc import Mapping, Sequence

from minority.backbones.text.prompts import Prompts
from tasks.config.prompts import PromptsConfig
from tasks.errors import InputError
from tasks.inputs.real_data import RealData


def prompts_for(config: PromptsConfig, real: RealData | None) -> Prompts:
    """The prompts of every group, in the order of the groups.

    Args:
        config: Templates, or prompts by group.
        real: The set; None takes the groups that the config names, in its order.

    Raises:
        InputError: For a group without a prompt, a template that names what the group has not, or prompts of a group
            that does not exist; before anything is loaded.
    """
    if real is None:
        if not config.groups:
            raise InputError("backbone.prompts.groups is not set; without a set of images, name prompts there.")
        return Prompts(texts=tuple(config.groups.values()), negative=config.negative)
    unknown = [group for group in config.groups if group not in real.groups]
    if unknown:
        raise InputError(
            f"backbone.prompts.groups names the group {unknown[0]!r}, which the set has not; its groups are "
            f"{', '.join(real.groups)}."
        )
    names = [real.train.class_names[label] for label in real.group_labels]
    texts = [_texts(config, group, label=label) for group, label in zip(real.groups, names, strict=True)]
    return Prompts(texts=tuple(texts), negative=config.negative)


def _texts(config: PromptsConfig, group: str, *, label: str) -> tuple[str, ...]:
    templates: Sequence[str] = config.groups.get(group, config.templates)
    if not templates:
        raise InputError(f"group {group!r} has no prompt; set backbone.prompts.templates, or name it in .groups.")
    if group in config.groups:
        return tuple(templates)
    values = {"label": label, "group": group} | dict(_pairs(group))
    words = {name: config.words.get(name, {}).get(value, value) for name, value in values.items()}
    return tuple(_filled(template, words, group=group) for template in templates)


def _pairs(group: str) -> list[tuple[str, str]]:
    """Names and values of a group such as "Blond_Hair=1,Male=0"."""
    parts = [part.partition("=") for part in group.split(",")]
    return [(name, value) for name, sign, value in parts if sign]


def _filled(template: str, values: Mapping[str, str], *, group: str) -> str:
    try:
        wanted = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise InputError(f"the prompt template {template!r} cannot be read ({error}); write {{label}}.") from error
    unknown = [name for name in wanted if name not in values]
    if unknown:
        raise InputError(
            f"the prompt template {template!r} asks for {unknown[0]!r}, which group {group!r} has not; it has "
            f"{', '.join(values)}."
        )
    return template.format(**values)

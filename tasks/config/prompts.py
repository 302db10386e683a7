"""The prompts of a text-to-image backbone, as a config gives them."""

from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_Several = Annotated[tuple[str, ...], BeforeValidator(_several, json_schema_input_type=str | list[str])]


class PromptsConfig(BaseModel):
    """What the groups of a set are called in prompts; one is chosen for every sample, by its seed, index and group."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    templates: Annotated[
        _Several,
        Field(description='For every group, e.g. "a photo of a {label}"; names: label, and the columns of the groups.'),
    ] = ()
    groups: Annotated[
        dict[str, _Several], Field(description="Prompts of single groups by name, instead of the templates.")
    ] = {}
    words: Annotated[
        dict[str, dict[str, str]],
        Field(description='What stands in templates for a value, by name, e.g. Male: {"0": woman, "1": man}.'),
    ] = {}
    negative: Annotated[
        str | None, Field(description="Negative prompt; none: what the family's pipeline takes where none is given.")
    ] = None

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if not self.templates and not self.groups:
            raise ValueError("prompts needs templates, or the prompts of every group.")
        return self

import dataclasses
import typing
from dataclasses import dataclass, field, replace

import pytest
from pydantic import BaseModel

from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.settings import SamplerSettings
from tasks.config.preset_files import list_presets
from tasks.config.presets import FLOWS, load_preset
from tasks.config.recipe import differing, recipe_of
from tasks.config.runs import AugmentConfig, CalibrateConfig
from tasks.config.sections import PlanConfig, Section

OF = {"backbone_identity": "a" * 64, "real_digest": "b" * 64}


@dataclass(frozen=True, kw_only=True)
class LaterSampler(SamplerSettings):
    """Sampler settings of a later version, with one more setting."""

    later: float = 0.25


class LaterPlan(PlanConfig):
    """A plan of a later version."""

    later: int | None = None
    tolerance: LaterSampler = LaterSampler()


class LaterAugment(AugmentConfig):
    """A run of a later version: a setting, a section and settings in sections were added."""

    later: str = "none"
    sampler: LaterSampler = LaterSampler()
    plan: LaterPlan = LaterPlan()
    extra: LaterPlan = LaterPlan()


def augment(kind=AugmentConfig, **changes):
    values = {"name": "toy", "dataset": {"reader": "digits"}, "backbone": "somewhere"}
    return kind.model_validate(values | changes)


def test_a_setting_that_is_added_at_its_default_renames_no_run():
    sampler = {"steps": 25, "self_guidance": {"scale": 3.0}}

    assert augment(LaterAugment).recipe(**OF) == augment().recipe(**OF)
    assert augment(LaterAugment, sampler=sampler).recipe(**OF) == augment(sampler=sampler).recipe(**OF)


@pytest.mark.parametrize(
    "change",
    [
        {"later": "some"},
        {"sampler": {"later": 0.5}},
        {"plan": {"later": 1}},
        {"extra": {"later": 1}},
        {"plan": {"tolerance": {"later": 1.0}}},
    ],
    ids=str,
)
def test_an_added_setting_counts_where_it_is_not_at_its_default(change):
    assert augment(LaterAugment, **change).recipe(**OF) != augment().recipe(**OF)


def test_a_value_written_out_that_equals_the_default_counts_as_the_default():
    explicit = {"sampler": {"steps": 50, "variance": "learned_range", "engine": {}}, "plan": {"max_rounds": 4}}

    assert augment(**explicit).recipe(**OF) == augment().recipe(**OF)
    assert augment(scores={"perturbation": 0.5}).recipe(**OF) == augment().recipe(**OF)


@pytest.mark.parametrize("preset", [name for flow, name, _ in list_presets() if flow == "augment"])
def test_presets_hash_as_they_do_with_every_default_written_out(preset):
    config = load_preset(AugmentConfig, preset)

    written_out = AugmentConfig.model_validate(config.model_dump(mode="json"))

    assert written_out.recipe(**OF) == config.recipe(**OF)


def test_what_is_hashed_is_what_differs_and_nothing_else():
    config = augment(sampler={"steps": 25, "self_guidance": {"scale": 3.0}}, selection={"held_out": {}})

    assert differing(config) == {
        "name": "toy",
        "dataset": {"reader": "digits"},
        "backbone": {"path": "somewhere"},
        "sampler": {"steps": 25, "self_guidance": {"scale": 3.0}},
        "selection": {"held_out": {}},
    }


def test_a_section_that_is_there_is_not_the_same_as_none():
    assert augment(selection={"held_out": {}}).recipe(**OF) != augment().recipe(**OF)
    assert augment(sampler={"boost_and_skip": {}}).recipe(**OF) != augment().recipe(**OF)


def test_a_section_whose_parent_has_defaults_of_its_own_is_compared_with_those():
    class Parent(BaseModel):
        sampler: SamplerSettings = SamplerSettings(steps=10)

    assert differing(Parent()) == {}
    assert differing(Parent(sampler=SamplerSettings())) == {"sampler": {"steps": 50}}
    assert differing(Parent(sampler=SamplerSettings(steps=10, eta=0.5))) == {"sampler": {"eta": 0.5}}


def test_lists_of_sections_are_reduced_too():
    @dataclass(frozen=True)
    class Column:
        name: str
        scale: float = 1.0

    @dataclass(frozen=True)
    class Table:
        columns: tuple[Column, ...] = field(default=())

    found = differing(Table((Column("a"), Column("b", 2.0))))

    assert found == {"columns": [{"name": "a"}, {"name": "b", "scale": 2.0}]}


def test_numbers_count_and_not_their_spelling():
    assert recipe_of({"a": 4.0, "b": [1]}) == recipe_of({"b": [1.0], "a": 4})
    assert recipe_of({"a": True}) != recipe_of({"a": 1})
    typed = SamplerSettings(self_guidance=SelfGuidance(scale=3))
    assert augment(sampler=typed).recipe(**OF) == augment(sampler={"self_guidance": {"scale": 3.0}}).recipe(**OF)


def test_the_real_images_and_the_backbone_are_in_every_recipe():
    for config in (augment(), load_preset(CalibrateConfig, "digits")):
        recipes = {
            config.recipe(**OF),
            config.recipe(**OF | {"real_digest": "c" * 64}),
            config.recipe(**OF | {"backbone_identity": "c" * 64}),
        }
        assert len(recipes) == 3


@pytest.mark.parametrize(
    "change", [{"calibration": {"budget": 5000}}, {"unit_size": 32}, {"seed": 1}, {"sampler": {"steps": 9}}], ids=str
)
def test_a_calibration_has_a_recipe_by_the_same_rule(change):
    values = {"name": "toy", "dataset": {"reader": "digits"}, "backbone": "somewhere"}
    plain = CalibrateConfig.model_validate(values)

    assert CalibrateConfig.model_validate(values | change).recipe(**OF) != plain.recipe(**OF)
    assert CalibrateConfig.model_validate(values | {"unit_size": 256}).recipe(**OF) == plain.recipe(**OF)
    assert CalibrateConfig.model_validate(values | {"store": "/elsewhere"}).recipe(**OF) == plain.recipe(**OF)


def section_types(annotation):
    """The sections that a field may hold, by its annotation."""
    found = {annotation} if isinstance(annotation, type) and is_section(annotation) else set()
    return found.union(*(section_types(part) for part in typing.get_args(annotation)))


def is_section(kind):
    return dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel)


def fields_of(kind):
    hints = typing.get_type_hints(kind)
    for name, annotation in hints.items():
        yield f"{kind.__name__}.{name}", section_types(annotation)


def test_no_setting_holds_one_of_several_sections():
    # Two sections at their defaults would be the same mapping: a setting of its own must tell them apart.
    kinds, left = set(), [*FLOWS.values()]
    while left:
        kind = left.pop()
        if kind in kinds:
            continue
        kinds.add(kind)
        for name, sections in fields_of(kind):
            assert len(sections) <= 1, f"{name} may be any of {sections}; tell them apart in tasks/config/recipe.py"
            left += sections

    assert {AugmentConfig, SamplerSettings, SelfGuidance, Section} - kinds == {Section}


def test_replacing_a_setting_in_a_dataclass_changes_the_recipe():
    config = load_preset(AugmentConfig, "digits")
    other = config.model_copy(update={"sampler": replace(config.sampler, eta=0.5)})

    assert other.recipe(**OF) != config.recipe(**OF)

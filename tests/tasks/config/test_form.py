"""The form of a run: what it says of every setting, and what it refuses before a run is created."""

from functools import lru_cache
from typing import get_args

import pytest
from jsonschema import Draft202012Validator
from prefect.exceptions import MissingFlowError
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate
from yaml import safe_load

from tasks.config.form_texts import texts_of_settings
from tasks.config.preset_files import PREFECT_FILE
from tasks.config.sections import Reader, settings_of_reader

DEPLOYMENTS = safe_load(PREFECT_FILE.read_text())["deployments"]
ENTRYPOINTS = sorted({entry["entrypoint"] for entry in DEPLOYMENTS} | {"flows.augment:augment"})
DIGITS = DEPLOYMENTS[0]


@lru_cache
def schema_of(entrypoint):
    return parameter_schema(load_flow_from_entrypoint(entrypoint)).model_dump_for_openapi()


def settings_in(schema):
    """(where, schema) of every setting that a form has."""
    for section in (schema, *schema["definitions"].values()):
        for name, node in section.get("properties", {}).items():
            yield f"{section['title']}.{name}", node


def check(overrides, entry=DIGITS):
    validate(entry["parameters"] | {"overrides": overrides}, schema_of(entry["entrypoint"]), raise_on_error=True)


@pytest.mark.system
@pytest.mark.parametrize("entrypoint", ENTRYPOINTS)
def test_every_setting_has_a_text_and_an_example_that_it_takes(entrypoint):
    schema = schema_of(entrypoint)
    settings = dict(settings_in(schema))

    assert len(settings) > 20
    assert [place for place, node in settings.items() if len(node.get("description", "")) < 6] == []
    for place, node in settings.items():
        (example,) = node["examples"]
        errors = Draft202012Validator(node | {"definitions": schema["definitions"]}).iter_errors(example)
        assert [error.message for error in errors] == [], place


@pytest.mark.parametrize(
    "entry", DEPLOYMENTS, ids=lambda entry: f"{entry['entrypoint'].split(':')[-1]}-{entry['name']}"
)
def test_the_form_of_a_deployment_has_the_settings_of_its_reader_alone(entry):
    dataset = entry["parameters"]["config"].get("dataset")
    definitions = schema_of(entry["entrypoint"])["definitions"]

    if dataset is None:
        assert "DatasetConfig" not in definitions
        return
    shown = definitions["DatasetConfig"]["properties"]
    assert set(shown) == settings_of_reader(dataset["reader"])
    assert shown["reader"]["enum"] == [dataset["reader"]]
    assert ("TableSettings" in definitions) == (dataset["reader"] == "image_table")


def test_a_form_of_no_reader_has_the_settings_of_all():
    shown = schema_of("flows.augment:augment")["definitions"]["DatasetConfig"]["properties"]

    assert set().union(*map(settings_of_reader, get_args(Reader))) == set(shown)
    with pytest.raises(MissingFlowError):
        load_flow_from_entrypoint("flows.reader_forms.celeba:downstream")


@pytest.mark.parametrize("reader", get_args(Reader))
def test_every_reader_has_its_flows(reader):
    shown = schema_of(f"flows.reader_forms.{reader}:adapt")["definitions"]["DatasetConfig"]["properties"]

    assert shown["reader"]["enum"] == [reader]
    assert set(shown) == settings_of_reader(reader)


@pytest.mark.parametrize("flow", ["augment", "backbone", "adapt", "calibrate", "discover"])
def test_a_flow_of_a_reader_is_the_flow(flow):
    function = flow.replace("backbone", "train_backbone")
    general = load_flow_from_entrypoint(f"flows.{function}:{function}")
    narrowed = load_flow_from_entrypoint(f"flows.reader_forms.celeba:{flow}")

    assert narrowed.fn is general.fn
    assert (narrowed.name, narrowed.flow_run_name) == (general.name, general.flow_run_name)


@pytest.mark.parametrize(
    "overrides",
    [
        None,
        {},
        {"seed": 3, "sampler.self_guidance.scale": 2, "plan.quota": None, "store": "s3://bucket/prefix"},
        {"sampler": "sgms", "downstream.arms": ["real", "dfr"]},
        {"sampler": {"name": "sgms", "self_guidance": {"perturbation": 0.4}}},
        {"workers.gpus": 2, "plan.gate": 1, "labeller.weight_decay": 0, "dataset.split.validation_fraction": 0},
        {"scores.zero_shot": {}, "plan.groups": "all", "publish.review": True},
        {"plan": {"quota": 20}, "backbone": "backbones/digits", "backbone.flags.preset": "celeba64"},
        {"backbone.prompts.words.colour.red": "crimson", "dataset.split.imbalance": 10.5},
        {"selection.held_out.critic.mirrored_is_fake": True, "selection.held_out.realness": 0.5},  # former names
    ],
)
def test_overrides_that_a_worker_takes_pass(overrides):
    check(overrides)


@pytest.mark.system
@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"seeed": 3}, "'seeed' was unexpected"),
        ({"sampler.stps": 25}, "'sampler.stps' was unexpected"),
        ({"seed": "three"}, "'three' is not of type 'integer'"),
        ({"seed": -1}, "-1 is less than the minimum of 0"),
        ({"plan.expected_yield": 1.5}, "1.5 is greater than the maximum of 1"),
        ({"plan.quota": 10**9}, "is greater than the maximum of 10000000"),
        ({"sampler.self_guidance.perturbation": 1.5}, "1.5 is greater than or equal to the maximum of 1"),
        ({"downstream.budget.steps": 0}, "0 is less than the minimum of 1"),
        ({"labeller.learning_rate": 0}, "0 is less than or equal to the minimum of 0"),
        ({"device": "tpu"}, "'tpu' is not one of"),
        ({"sampler.solver": "magic"}, "'magic' is not one of"),
        ({"sampler": "no-such"}, "'no-such' is not one of"),
        ({"plan": {"quotas": 3}}, "'quotas' was unexpected"),
        ({"dataset.reader": "celeba"}, "'celeba' is not one of"),
        ({"dataset.folder": "data/celeba"}, "'dataset.folder' was unexpected"),
    ],
)
def test_overrides_that_no_worker_would_take_are_refused_by_name(overrides, reason):
    with pytest.raises(ValidationError) as caught:
        check(overrides)

    message = str(caught.value)
    assert reason in message
    assert "overrides" in message
    assert len(message) < 1000


def test_a_config_is_refused_by_the_setting_that_is_wrong():
    config = DIGITS["parameters"]["config"]
    wrong = config | {"dataset": config["dataset"] | {"folder": "data/celeba"}}

    with pytest.raises(ValidationError, match=r"config.dataset.*'folder' was unexpected"):
        validate({"config": wrong}, schema_of(DIGITS["entrypoint"]), raise_on_error=True)


def test_texts_come_from_docstrings_of_classes_and_their_bases():
    class Base:
        """Base.

        Attributes:
            first: One thing,
                told in two lines.
            second: Of the base.

        Example:
            third: nothing
        """

    class Below(Base):
        """Below.

        Attributes:
            second: Of its own.
        """

    assert texts_of_settings(Below) == {"first": "One thing, told in two lines.", "second": "Of its own."}

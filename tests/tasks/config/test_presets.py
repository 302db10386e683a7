import asyncio
import re
import shlex
from functools import cache

import pytest
from prefect.deployments.steps.core import run_step
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate as check_schema
from yaml import safe_load

from tasks.config.preset_files import PREFECT_FILE, list_presets
from tasks.config.presets import FLOWS, command_of, load_preset, parse_overrides, validate
from tasks.config.runs import AugmentConfig, DownstreamConfig, TrainBackboneConfig
from tasks.errors import InputError

DEPLOYMENTS = safe_load(PREFECT_FILE.read_text())["deployments"]
ENTRIES = [
    pytest.param(flow, entry, id=f"{flow}-{name}")
    for (flow, name, _), entry in zip(list_presets(), DEPLOYMENTS, strict=True)
]
AUGMENT_PRESETS = [name for flow, name, _ in list_presets() if flow == "augment"]


def refusal(*assignments, preset="digits"):
    with pytest.raises(InputError) as caught:
        load_preset(AugmentConfig, preset, overrides=parse_overrides(assignments))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_preset_is_a_deployment():
    assert [name for _, name, _ in list_presets()] == [entry["name"] for entry in DEPLOYMENTS]
    assert ("augment", "digits") in {(flow, name) for flow, name, _ in list_presets()}
    assert all(description for _, _, description in list_presets())


@pytest.mark.parametrize(("flow", "name"), [(flow, name) for flow, name, _ in list_presets()])
def test_every_preset_is_a_valid_config_under_its_own_name(flow, name):
    config = load_preset(FLOWS[flow], name)

    assert config.name == name


@cache
def schema_of(entrypoint):
    return parameter_schema(load_flow_from_entrypoint(entrypoint)).model_dump_for_openapi()


@pytest.mark.system
@pytest.mark.parametrize("entry", DEPLOYMENTS, ids=lambda entry: entry["name"])
def test_every_deployment_names_a_flow_that_takes_its_parameters_and_has_no_active_schedule(entry):
    flow = load_flow_from_entrypoint(entry["entrypoint"])

    flow.validate_parameters(entry["parameters"])
    check_schema(entry["parameters"], schema_of(entry["entrypoint"]), raise_on_error=True)
    assert all(schedule["active"] is False for schedule in entry.get("schedules", []))
    assert entry["work_pool"]["name"] == "gpu"


@pytest.mark.parametrize(("flow", "entry"), ENTRIES)
def test_every_deployment_tells_an_operator_what_it_is_and_when_it_may_run(flow, entry):
    description = entry["description"].strip()

    assert flow in entry["tags"]
    assert all(schedule["cron"] and schedule["slug"] for schedule in entry["schedules"])
    assert entry["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert 60 <= len(description) <= 400, "one paragraph in the UI"
    assert description[0].isupper()
    assert description.endswith(".")


@pytest.mark.parametrize("name", AUGMENT_PRESETS)
def test_every_augment_preset_can_be_scheduled(name):
    entry = next(entry for entry in DEPLOYMENTS if entry["name"] == name and "augment" in entry["entrypoint"])

    assert entry["schedules"]


@pytest.mark.parametrize("name", AUGMENT_PRESETS)
def test_the_presets_of_one_name_have_the_same_real_images_and_backbone(name):
    augment = load_preset(AugmentConfig, name)
    beside = [flow for flow, other, _ in list_presets() if other == name and flow in ("backbone", "calibrate")]
    others = {flow: load_preset(FLOWS[flow], name) for flow in beside}

    told = augment.backbone.pretrained_on
    for flow, other in others.items():
        # A pretrained backbone is trained on what it is said to have seen, which is not the user's set.
        assert other.dataset == (told.dataset if told is not None and flow == "backbone" else augment.dataset)
    if "backbone" in others:
        assert others["backbone"].out == augment.backbone.path
    if "calibrate" in others:
        calibrated = others["calibrate"].augment()
        assert calibrated.backbone == augment.backbone
        assert calibrated.features == augment.features
        assert calibrated.labeller == augment.labeller


@pytest.mark.system
def test_the_pull_step_leads_to_the_checkout_wherever_the_run_starts(tmp_path, monkeypatch):
    (pull,) = safe_load(PREFECT_FILE.read_text())["pull"]
    monkeypatch.chdir(tmp_path)

    assert asyncio.run(run_step(pull)) == {"directory": str(PREFECT_FILE.parent)}


def test_the_production_page_lists_every_preset():
    page = (PREFECT_FILE.parent / "docs" / "production.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z]+/[a-z0-9-]+)` \|", page, flags=re.MULTILINE))

    assert listed == {f"{flow}/{name}" for flow, name, _ in list_presets()}


def test_a_preset_may_be_named_with_its_flow():
    assert load_preset(AugmentConfig, "augment/digits") == load_preset(AugmentConfig, "digits")


def test_dotted_settings_override_the_preset_and_leave_the_rest():
    plain = load_preset(AugmentConfig, "digits")

    changed = load_preset(
        AugmentConfig,
        "digits",
        overrides=parse_overrides(["seed=7", "sampler.self_guidance.scale=3.5", "plan.quota=null", "store=/data/x"]),
    )

    assert (changed.seed, changed.sampler.self_guidance.scale, changed.plan.quota) == (7, 3.5, None)
    assert changed.store == "/data/x"
    assert changed.sampler.self_guidance.interval == plain.sampler.self_guidance.interval
    assert changed.dataset == plain.dataset


def test_a_section_that_is_absent_can_be_filled_or_taken_away():
    filled = load_preset(AugmentConfig, "digits", overrides={"sampler.boost_and_skip.boost": 4.0})
    emptied = load_preset(AugmentConfig, "digits", overrides={"sampler.self_guidance": None})

    assert filled.sampler.boost_and_skip.boost == 4.0
    assert emptied.sampler.self_guidance is None


def test_overriding_one_preset_leaves_the_next_load_untouched():
    before = load_preset(AugmentConfig, "celeba")

    load_preset(AugmentConfig, "celeba", overrides={"dataset.image_size": 32})

    assert load_preset(AugmentConfig, "celeba") == before


def test_a_misspelt_preset_is_refused_with_the_likely_one():
    assert refusal(preset="digit") == "there is no preset augment/digit; did you mean digits."


def test_an_unknown_preset_is_refused_with_all_there_are():
    message = refusal(preset="zzz")

    assert "augment/zzz" in message
    assert all(name in message for name in AUGMENT_PRESETS)


@pytest.mark.parametrize(
    ("assignment", "path", "hint"),
    [
        ("sed=3", "sed", "seed"),
        ("sampler.stepz=3", "sampler.stepz", "steps"),
        ("sampler.self_guidance.scle=3", "sampler.self_guidance.scle", "scale or space"),
        ("dataset.split.imbalanc=3", "dataset.split.imbalanc", "imbalance"),
        ("downstream.budget.network.widht=3", "downstream.budget.network.widht", "width or weights"),
    ],
)
def test_an_unknown_key_is_refused_with_its_whole_path_and_the_likely_one(assignment, path, hint):
    assert refusal(assignment) == f"{path} is not a setting; did you mean {hint}."


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("seed=many", ["seed: ", "integer", "'many'"]),
        ("plan.unit_size=2.5", ["plan.unit_size: ", "integer", "2.5"]),
        ("plan.unit_size=0", ["plan.unit_size: ", "greater than or equal to 1", "0"]),
        ("sampler.batch_size=0", ["sampler", "SamplerSettings.batch_size must be at least 1, got 0"]),
        ("sampler.self_guidance.interval=0", ["sampler.self_guidance", "interval", "got 0"]),
        ("device=tpu", ["device: ", "'auto', 'cpu' or 'cuda'", "'tpu'"]),
        ("name=../up", ["name: ", "pattern", "'../up'"]),
        ("dataset.split=7", ["dataset.split", "7"]),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_the_rule_and_the_value(assignment, parts):
    message = refusal(assignment)

    assert all(part in message for part in parts), message


@pytest.mark.parametrize("key", ["store", "dataset.folder", "features.weights"])
def test_credentials_in_a_setting_are_refused_without_repeating_them(key):
    message = refusal(f"{key}=s3://key:hush@bucket/runs")

    assert message.startswith(f"{key} is a URL that holds credentials")
    assert "hush" not in message


def test_all_that_is_wrong_is_told_at_once():
    message = refusal("seed=-1", "sampler.stepz=4")

    assert "seed: " in message
    assert "sampler.stepz" in message


def test_a_key_below_a_single_value_is_refused():
    assert refusal("name.deep=1") == "name.deep cannot be set: name is a single value, 'digits'."


@pytest.mark.parametrize("text", ["seed", "=3", " =3"])
def test_an_assignment_without_key_or_equals_sign_is_refused(text):
    with pytest.raises(InputError, match="takes key=value"):
        parse_overrides([text])


def test_a_value_that_cannot_be_read_is_refused():
    with pytest.raises(InputError, match=r"the value of seed is not readable: '\[1'"):
        parse_overrides(["seed=[1"])


def test_values_are_what_they_look_like():
    assert parse_overrides(["a=3", "b=0.5", "c=true", "d=null", "e=text", "f=[1, 2]", "g=10,15", "h=x=y"]) == {
        "a": 3,
        "b": 0.5,
        "c": True,
        "d": None,
        "e": "text",
        "f": [1, 2],
        "g": "10,15",
        "h": "x=y",
    }


def test_a_config_survives_prefects_parameters():
    config = load_preset(AugmentConfig, "digits")

    assert validate(AugmentConfig, config.model_dump(mode="json"), overrides={}) == config


def test_the_backbone_flow_has_presets_of_its_own():
    names = [name for flow, name, _ in list_presets() if flow == "backbone"]

    assert all(load_preset(TrainBackboneConfig, name).out for name in names)


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        (AugmentConfig, {}),
        (AugmentConfig, {"seed": 7, "sampler.self_guidance.scale": 2.5, "plan.quota": 40, "downstream": None}),
        (AugmentConfig, {"sampler.self_guidance": None, "downstream.arms": ["real", "minority first"]}),
        (DownstreamConfig, {"downstream.budget.learning_rates": [0.1, 0.01], "downstream.seeds": 9}),
    ],
)
def test_the_command_of_a_config_gives_that_config_again(kind, overrides):
    config = load_preset(kind, "digits", overrides=overrides | {"store": "/elsewhere"})

    _, verb, name, *options = shlex.split(command_of(config, exclude=["store"]))

    assert verb in ("augment", "downstream")
    assert options[::2] == ["--set"] * (len(options) // 2)
    assert load_preset(kind, name, overrides=parse_overrides(options[1::2])) == config.model_copy(
        update={"store": load_preset(kind, name).store}
    )

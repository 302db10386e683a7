"""Arms by name: those that are declared, and any combination of parts, such as loss-oversampling+statistics-mixing.

A part sets what is its own and leaves the rest; two parts that set one thing do not go together. The name of a source
of synthetic images is a part too. The first part with a strength of its own has it tuned, the others keep the value
that they prefer; so every combination gets as many trials as an arm of one part.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from minority.downstream.arms import Arm, arms_for

#: What each part sets; "tuned" and "values" are its strength.
PARTS: Mapping[str, Mapping[str, Any]] = {
    "real": {},
    "oversampling": {"draws": "group_balanced"},
    "loss-oversampling": {"draws": "loss_oversampled", "tuned": "top", "values": (0.01, 0.05)},
    "jtt": {"draws": "errors_upweighted", "tuned": "upweight", "values": (20.0, 50.0)},
    "neighbour-oversampling": {"draws": "neighbour_oversampled", "tuned": "top", "values": (0.01, 0.05)},
    "statistics-mixing": {"statistics_mixing": 0.1, "tuned": "statistics_mixing", "values": (0.1, 1.0)},
    "feature-mixing": {"feature_mixing": 0.1, "tuned": "feature_mixing", "values": (0.1, 1.0)},
    "mixup": {"mixup": 0.2, "tuned": "mixup", "values": (0.2, 1.0)},
    "randaugment": {"randaugment": 6.0, "tuned": "randaugment", "values": (6.0, 12.0)},
    "lisa": {"lisa": 0.5, "tuned": "lisa", "values": (0.5, 0.0)},
    "class-balanced-loss": {"loss": "class_balanced", "tuned": "beta", "values": (0.999, 0.99)},
    "logit-adjustment": {"loss": "logit_adjusted", "tuned": "tau", "values": (1.0, 1.5)},
    "attribute-adjustment": {"loss": "attribute_adjusted", "tuned": "smoothing", "values": (1.0, 30.0)},
    "attribute-adversary": {"adversary": 1.0, "tuned": "adversary", "values": (1.0, 0.3)},
    "group-dro": {"loss": "group_dro", "tuned": "eta", "values": (0.01, 0.1)},
    "lff": {"loss": "learning_from_failure", "tuned": "q", "values": (0.7, 0.5)},
    "inferred-groups": {"groups": "inferred", "tuned": "early", "values": (0.15, 0.4)},
    "dfr": {"last_layer": True, "tuned": "ridge", "values": (1.0, 30.0)},
}


def arm_named(name: str, *, sources: Sequence[str] = ()) -> Arm:
    """The arm of a name: one that is declared, else the combination of its parts.

    Args:
        name: E.g. "dfr" or "loss-oversampling+statistics-mixing"; underscores are read as hyphens.
        sources: The sources of synthetic images that there are; their names are parts.

    Raises:
        ValueError: A part is unknown, named twice, or does not go with another.

    Example:
        >>> arm_named("loss-oversampling+mixup").mixup
        0.2
    """
    declared = {arm.name: arm for arm in arms_for(sources)}
    wanted = name if name in declared else name.replace("_", "-")
    return declared[wanted] if wanted in declared else _combined(wanted, sources)


def _combined(name: str, sources: Sequence[str]) -> Arm:
    settings: dict[str, Any] = {"name": name}
    set_by: dict[str, str] = {}
    names = name.split("+")
    for part in names:
        if names.count(part) > 1:
            raise ValueError(f"{name} names {part} twice; name each part once.")
        if part not in PARTS and part not in sources:
            known = ", ".join([*PARTS, *sources])
            raise ValueError(f"{name}: there is no part {part}; parts are {known}.")
        changes = PARTS.get(part, {"source": part, "tuned": "synthetic_weight", "values": (1.0, 0.3)})
        for key, value in changes.items():
            if key in ("tuned", "values"):
                continue
            if key in set_by:
                raise ValueError(f"{name}: {set_by[key]} and {part} both decide {key}; leave one of them out.")
            set_by[key], settings[key] = part, value
        if "tuned" not in settings and "tuned" in changes:
            settings |= {"tuned": changes["tuned"], "values": changes["values"]}
    return Arm(**settings)

"""Arms: the training recipes that are compared, declared.

What every part of a recipe does stands in the file of its family:

    sampling.py          how often each image is drawn: as it comes, balanced, or with a share of synthetic images
    identification.py    what an early model, or the distance to neighbours, says of the training images: oversampling
                         by loss, Just Train Twice (JTT), AvgkNN
    inferred_groups.py   groups without attribute labels (EIIL)
    losses.py            class-balanced loss, logit adjustment by class or by attribute, GroupDRO, generalised
                         cross-entropy
    objectives.py        attribute adversary, learning from failure (LfF)
    mixing.py            mixup and RandAugment
    statistics_mixing.py MixStyle on pixels and in feature maps
    selective_mixing.py  LISA
    training.py          synthetic first, then real
    last_layer.py        deep feature reweighting (DFR)
    pretrained.py        a pretrained backbone itself: its features, its encoder, its zero-shot answers

Parts are combined by name (combining.py): loss-oversampling+statistics-mixing. An arm's own strength (the share of
synthetic images, tau of logit adjustment, ...) is tuned like the learning rate, and no arm gets more trials or
optimiser steps than another (trials.py); the steps of an early model are among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Loss = Literal[
    "cross_entropy",
    "class_balanced",
    "logit_adjusted",
    "group_dro",
    "attribute_adjusted",
    "generalised",
    "learning_from_failure",
]
Draws = Literal["natural", "group_balanced", "filled", "loss_oversampled", "errors_upweighted", "neighbour_oversampled"]
#: They need an early model's losses or errors.
_BY_EARLY_MODEL = ("loss_oversampled", "errors_upweighted")
#: "network": a classifier trained from scratch. The others use a pretrained backbone without drawing from it
#: (pretrained.py): "linear_probe" is a logistic regression on its features, "fine_tuned" trains its encoder on,
#: "zero_shot" asks it which class explains an image best, "distilled" teaches those answers to a network.
Learner = Literal["network", "linear_probe", "fine_tuned", "zero_shot", "distilled"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One recipe of training.

    Attributes:
        name: What it is called in results.
        source: The source of its synthetic images, or None.
        synthetic_share: Share of every batch that is synthetic, in [0, 1], while both are drawn.
        synthetic_first: Share of the steps that come first and see synthetic images alone, in [0, 1); the others then
            see real ones alone.
        synthetic_weight: Weight of a synthetic image's loss, in (0, 1]; a real one's is 1.
        draws: Real images as they come; every group equally often; or those more often that an early model finds hard
            or gets wrong, or that lie far from their class; synthetic ones come as they are. "filled": real and
            synthetic images in one heap, every group equally often.
        top: Share of every class that counts as hard or far, in (0, 1).
        top_share: Share of the draws that these get together, in (0, 1).
        upweight: How many times as often an image that the early model gets wrong is drawn (lambda_up of JTT), >= 1.
        early: Share of the steps that go to the early model, in (0, 1), where there is one.
        groups: Groups as they are given, or inferred from an early model without attribute labels (EIIL, Creager et
            al. 2021).
        loss: What is minimised while real images are drawn; synthetic images alone are learnt by cross-entropy.
        beta: Of the class-balanced loss (Cui et al. 2019), in [0, 1).
        tau: Of logit adjustment (Menon et al. 2021), >= 0.
        eta: Step of GroupDRO's group weights (Sagawa et al. 2020), > 0.
        smoothing: Images that logit adjustment by attribute adds to each attribute's, spread over the classes, > 0.
        q: Of generalised cross-entropy (Zhang & Sabuncu 2018), in (0, 1], also in learning from failure.
        adversary: Weight of the attribute adversary (Zhang et al. 2018), > 0, or None.
        statistics_mixing: Alpha of MixStyle on pixels (Zhou et al. 2021), > 0, or None.
        feature_mixing: Alpha of MixStyle in feature maps, > 0, or None.
        lisa: Share of LISA's pairs (Yao et al. 2022) that have one class, in [0, 1]; the others have one attribute. Or
            None.
        mixup: Alpha of mixup (Zhang et al. 2018), > 0, or None.
        randaugment: Magnitude of RandAugment (Cubuk et al. 2020), in (0, 30], or None.
        last_layer: Retrain the last layer on group-balanced validation data (DFR, Kirichenko et al. 2023).
        ridge: Penalty on its weights, > 0.
        learner: What is fitted.
        sharpness: Of the teacher's answers in distillation, > 0: 1 takes half the summed squared error for a negative
            log-likelihood.
        share_of_levels: Share of the noise levels, the cleaner ones first, that a zero-shot answer goes by; in (0, 1].
        rate_share: Learning rate of a fine-tuned encoder as a share of the trial's, in (0, 1].
        tuned: The attribute that trials vary beside the learning rate, or None.
        values: What they try, in order of preference.
    """

    name: str
    source: str | None = None
    synthetic_share: float = 0.5
    synthetic_first: float = 0.0
    synthetic_weight: float = 1.0
    draws: Draws = "natural"
    top: float = 0.01
    top_share: float = 0.5
    upweight: float = 20.0
    early: float = 0.15
    groups: Literal["given", "inferred"] = "given"
    loss: Loss = "cross_entropy"
    beta: float = 0.99
    tau: float = 1.0
    eta: float = 0.01
    smoothing: float = 1.0
    q: float = 0.7
    adversary: float | None = None
    statistics_mixing: float | None = None
    feature_mixing: float | None = None
    lisa: float | None = None
    mixup: float | None = None
    randaugment: float | None = None
    last_layer: bool = False
    ridge: float = 1.0
    learner: Learner = "network"
    sharpness: float = 1.0
    share_of_levels: float = 1.0
    rate_share: float = 0.1
    tuned: str | None = None
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        rules = {
            "synthetic_share": (0 <= self.synthetic_share <= 1, "in [0, 1]"),
            "synthetic_first": (0 <= self.synthetic_first < 1, "in [0, 1)"),
            "synthetic_weight": (0 < self.synthetic_weight <= 1, "in (0, 1]"),
            "top": (0 < self.top < 1, "in (0, 1)"),
            "top_share": (0 < self.top_share < 1, "in (0, 1)"),
            "upweight": (self.upweight >= 1, "at least 1"),
            "early": (0 < self.early < 1, "in (0, 1)"),
            "smoothing": (self.smoothing > 0, "above 0"),
            "q": (0 < self.q <= 1, "in (0, 1]"),
            "adversary": (self.adversary is None or self.adversary > 0, "above 0, or None"),
            "statistics_mixing": (self.statistics_mixing is None or self.statistics_mixing > 0, "above 0, or None"),
            "feature_mixing": (self.feature_mixing is None or self.feature_mixing > 0, "above 0, or None"),
            "lisa": (self.lisa is None or 0 <= self.lisa <= 1, "in [0, 1], or None"),
            "beta": (0 <= self.beta < 1, "in [0, 1)"),
            "tau": (self.tau >= 0, "at least 0"),
            "eta": (self.eta > 0, "above 0"),
            "mixup": (self.mixup is None or self.mixup > 0, "above 0, or None"),
            "randaugment": (self.randaugment is None or 0 < self.randaugment <= 30, "in (0, 30], or None"),
            "ridge": (self.ridge > 0, "above 0"),
            "sharpness": (self.sharpness > 0, "above 0"),
            "share_of_levels": (0 < self.share_of_levels <= 1, "in (0, 1]"),
            "rate_share": (0 < self.rate_share <= 1, "in (0, 1]"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"Arm.{name} of {self.name} must be {rule}, got {getattr(self, name)}.")
        if self.synthetic_first and self.source is None:
            raise ValueError(f"arm {self.name} begins with synthetic images, but names no source of them.")
        if (self.tuned is None) != (not self.values):
            raise ValueError(f"arm {self.name} tunes {self.tuned!r} over {self.values}; give both or neither.")
        if self.groups == "inferred" and self.is_generative:
            raise ValueError(f"arm {self.name} infers groups, which its synthetic images have none of; leave one out.")
        if self.lisa is not None and self.mixup is not None:
            raise ValueError(f"arm {self.name} blends each image twice, by mixup and by LISA; leave one out.")
        if self.adversary is not None and self.loss == "learning_from_failure":
            raise ValueError(f"arm {self.name} has an adversary and learns from failure; leave one out.")

    @property
    def uses_backbone(self) -> bool:
        """Whether it needs the backbone itself, beside or instead of images that it drew."""
        return self.learner != "network"

    @property
    def is_generative(self) -> bool:
        """Whether it uses synthetic images."""
        return self.source is not None

    @property
    def has_early_model(self) -> bool:
        """Whether a part of the steps goes to a model that is thrown away."""
        return self.draws in _BY_EARLY_MODEL or self.groups == "inferred"

    @property
    def needs_attributes(self) -> bool:
        """Whether it uses the attribute of training images, beyond their groups."""
        return self.loss == "attribute_adjusted" or self.adversary is not None or self.lisa is not None

    def at(self, strength: float) -> "Arm":
        """The same recipe with another value of the attribute that is tuned."""
        assert self.tuned is not None, f"{self.name} has no strength of its own"
        changes: dict[str, Any] = {self.tuned: strength}
        return replace(self, **changes)


REAL_ARMS = (
    Arm(name="real"),
    Arm(name="oversampling", draws="group_balanced"),
    Arm(name="class-balanced-loss", loss="class_balanced", tuned="beta", values=(0.999, 0.99)),
    Arm(name="logit-adjustment", loss="logit_adjusted", tuned="tau", values=(1.0, 1.5)),
    Arm(name="mixup", draws="group_balanced", mixup=0.2, tuned="mixup", values=(0.2, 1.0)),
    Arm(name="randaugment", draws="group_balanced", randaugment=6, tuned="randaugment", values=(6.0, 12.0)),
    Arm(name="group-dro", draws="group_balanced", loss="group_dro", tuned="eta", values=(0.01, 0.1)),
    Arm(name="dfr", last_layer=True, tuned="ridge", values=(1.0, 30.0)),
    Arm(name="oversampling+dfr", draws="group_balanced", last_layer=True, tuned="ridge", values=(1.0, 30.0)),
    Arm(name="randaugment+dfr", randaugment=6, last_layer=True, tuned="ridge", values=(1.0, 30.0)),
    Arm(name="loss-oversampling", draws="loss_oversampled", tuned="top", values=(0.01, 0.05)),
    Arm(
        name="loss-oversampling+statistics-mixing",
        draws="loss_oversampled",
        statistics_mixing=0.1,
        tuned="top",
        values=(0.01, 0.05),
    ),
)


def synthetic_arms(source: str) -> tuple[Arm, ...]:
    """The arms that use the synthetic images of a source."""
    shares, firsts = (0.5, 0.25), (0.5, 0.25)
    return (
        Arm(name=f"real+{source}", source=source, tuned="synthetic_share", values=shares),
        Arm(
            name=f"real+{source} balanced",
            source=source,
            loss="logit_adjusted",
            tuned="synthetic_share",
            values=shares,
        ),
        Arm(
            name=f"real+{source} weighted",
            source=source,
            synthetic_weight=0.5,
            tuned="synthetic_weight",
            values=(0.5, 0.2),
        ),
        Arm(name=f"{source} first", source=source, synthetic_first=0.5, tuned="synthetic_first", values=firsts),
        Arm(
            name=f"{source} first+logit-adjustment",
            source=source,
            synthetic_first=0.5,
            loss="logit_adjusted",
            tuned="synthetic_first",
            values=firsts,
        ),
        Arm(
            name=f"real+{source} group-dro",
            source=source,
            draws="group_balanced",
            loss="group_dro",
            tuned="synthetic_share",
            values=shares,
        ),
        Arm(
            name=f"{source} first+group-dro",
            source=source,
            synthetic_first=0.5,
            draws="group_balanced",
            loss="group_dro",
            tuned="synthetic_first",
            values=firsts,
        ),
        Arm(name=f"real+{source}+dfr", source=source, last_layer=True, tuned="ridge", values=(1.0, 30.0)),
        Arm(
            name=f"real+{source} balanced+dfr",
            source=source,
            loss="logit_adjusted",
            last_layer=True,
            tuned="ridge",
            values=(1.0, 30.0),
        ),
        Arm(
            name=f"real+{source}+randaugment+dfr",
            source=source,
            randaugment=6,
            last_layer=True,
            tuned="ridge",
            values=(1.0, 30.0),
        ),
    )


#: Arms that use a pretrained backbone and draw nothing from it; those of the class-conditional ones apart.
BACKBONE_ARMS = (
    Arm(name="linear probe", learner="linear_probe", tuned="ridge", values=(1.0, 0.1, 10.0, 0.01)),
    Arm(name="linear probe dfr", learner="linear_probe", last_layer=True, tuned="ridge", values=(1.0, 0.1, 10.0, 0.01)),
    Arm(name="encoder fine-tuned", learner="fine_tuned", draws="group_balanced", tuned="rate_share", values=(0.3, 0.1)),
)
CONDITIONAL_BACKBONE_ARMS = (
    Arm(name="zero-shot", learner="zero_shot", tuned="share_of_levels", values=(1.0, 0.8, 0.6, 0.4)),
    Arm(
        name="zero-shot distilled",
        learner="distilled",
        draws="group_balanced",
        tuned="sharpness",
        values=(1.0, 0.2),
    ),
)


def backbone_arms(sources: Sequence[str], *, conditional: bool) -> tuple[Arm, ...]:
    """The arms of a backbone that knows more than the training set: those that draw nothing, then those that do.

    Args:
        sources: The sources of synthetic images.
        conditional: Whether the backbone takes class labels.
    """
    drawing = [
        arm
        for source in sources
        for arm in (
            Arm(name=f"filled {source}", source=source, draws="filled"),
            Arm(
                name=f"filled {source}+randaugment",
                source=source,
                draws="filled",
                randaugment=6,
                tuned="randaugment",
                values=(6.0, 12.0),
            ),
            Arm(name=f"{source} alone", source=source, synthetic_share=1.0),
            Arm(
                name=f"linear probe filled {source}",
                source=source,
                draws="filled",
                learner="linear_probe",
                tuned="ridge",
                values=(1.0, 0.1, 10.0, 0.01),
            ),
        )
    ]
    return (*BACKBONE_ARMS, *(CONDITIONAL_BACKBONE_ARMS if conditional else ()), *drawing)


def arms_for(sources: Sequence[str]) -> tuple[Arm, ...]:
    """All arms: those without synthetic images first, then those of every source."""
    return (*REAL_ARMS, *(arm for source in sources for arm in synthetic_arms(source)))

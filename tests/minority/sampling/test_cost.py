"""The expected cost of a sample is the one that the sampler counts, whatever the settings."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minority.backbones import Backbone
from minority.features.pixel_features import pixel_features
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.jepa_guidance import JepaGuidanceSettings
from minority.guidance.noise_aware_network import NoiseAwareNetwork
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.self_guidance import SelfGuidance
from minority.guidance.shaped_noise import ShapedNoise
from minority.neighbours.reference import RealReference
from minority.sampling.cost import expected_cost
from minority.sampling.draw import draw
from minority.sampling.settings import SamplerSettings

FRACTIONS = st.sampled_from([0.0, 0.06, 0.12, 0.29, 0.333, 0.5])


@pytest.fixture(scope="module")
def drawn_with():
    """What draws need beside their settings: real images, and the encoder of JEPA guidance."""
    pictures = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
    torch.manual_seed(0)
    network = NoiseAwareNetwork((1, 4, 4), num_outputs=2, width=8)
    return {
        "reference": RealReference.fit(pixel_features(pictures), k=5),
        "parts": {"jepa_guidance": {"classifier": network.state_dict()}},
    }


@st.composite
def samplers(draw_value):
    walk = draw_value(
        st.sampled_from(
            [{"steps": n} for n in (1, 2, 7, 25, "3,5", "10,15", "ddim25", "logsnr9")]
            + [{"steps": 7, "solver": "ddim", "eta": eta} for eta in (0.0, 1.0)]
            + [{"steps": "logsnr6", "solver": "dpm_solver"}]
        )
    )
    found = SamplerSettings(**walk)
    methods = [
        st.builds(BoostAndSkip, boost=st.just(2.0), skip=FRACTIONS),
        st.builds(
            SelfGuidance,
            scale=st.just(1.0),
            perturbation=FRACTIONS,
            interval=st.integers(1, 6),
            above=st.sampled_from([-1.0, 0.0, 0.3]),
            draws=st.integers(1, 3),
            jacobian=st.booleans(),
        ),
        st.builds(
            JepaGuidanceSettings,
            top=st.just(1),
            oversampling=st.just(0),
            iterations=st.just(0),
            interval=st.integers(2, 5),
            below=st.sampled_from([0.3, 1.0]),
            jacobian=st.booleans(),
        ),
        st.just(ClassifierFree(scale=1.5)),
        st.just(ShapedNoise(ancestral_scale=1.1)),
    ]
    if found.walk.is_stochastic:
        points = st.lists(st.sampled_from([0.01, 0.3, 0.5, 0.52, 0.7, 0.99]), min_size=1, max_size=3, unique=True)
        methods.append(
            st.builds(
                PruneAndBranch,
                weight_by=st.sampled_from(["metric", "features"]),
                points=points.map(sorted).map(tuple),
                draws=st.integers(1, 3),
            )
        )
    chosen = [draw_value(method) for method in methods if draw_value(st.booleans())]
    return found.guided(*chosen)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sampler=samplers(), label=st.integers(0, 1))
def test_the_expected_cost_is_what_drawing_takes(mixture, trained, drawn_with, sampler, label):
    backbone = Backbone("mixture", mixture, trained, image_shape=(1, 4, 4), num_classes=2, sha256="0" * 64)

    drawn = draw(backbone, seed=0, indices=range(4), labels=[label] * 4, settings=sampler, **drawn_with)

    assert expected_cost(sampler, backbone) == drawn.evaluations


def test_classifier_free_guidance_doubles_what_others_ask_too(mixture, trained):
    backbone = Backbone("mixture", mixture, trained, image_shape=(1, 4, 4), num_classes=2, sha256="0" * 64)
    guide = SelfGuidance(scale=1.0, interval=5, draws=2)
    sampler = SamplerSettings(steps=10).guided(guide, BoostAndSkip(skip=0.29))

    # Eight of ten steps are walked, 0 and 5 guided, by two predictions and a backward pass each.
    assert expected_cost(sampler, backbone) == 8 + 2 * (2 + 2)
    assert expected_cost(sampler.guided(ClassifierFree()), backbone) == 2 * (8 + 2 * (2 + 2))

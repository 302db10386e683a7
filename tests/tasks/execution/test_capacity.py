import os

import pytest

from tasks.config.presets import load_preset
from tasks.errors import InputError
from tasks.execution import capacity
from tasks.execution.capacity import Demand, Machine, Workers, takes_gpu, worker_slots


def on(monkeypatch, *machines):
    monkeypatch.setattr(capacity, "machines", lambda: list(machines))


def demand(*, device="auto", **workers):
    return Demand(workers=Workers(**workers), device=device)


@pytest.mark.parametrize(
    ("machines", "wanted", "expected"),
    [
        ([Machine(gpus=1, cpus=16)], {}, 1),
        ([Machine(gpus=4, cpus=16), Machine(gpus=2, cpus=64)], {}, 6),
        ([Machine(gpus=4, cpus=16)], {"gpus": 2}, 2),
        ([Machine(gpus=3, cpus=16), Machine(gpus=1, cpus=16)], {"gpus": 2}, 1),  # one unit stays on one machine
        ([Machine(gpus=2, cpus=16)], {"gpus": 0.5}, 4),
        ([Machine(gpus=2, cpus=16)], {"gpus": 0.1}, 20),
        ([Machine(gpus=2, cpus=16)], {"gpus": 0.6}, 2),  # what is left of a GPU is too little for a second unit
        ([Machine(gpus=2, cpus=16)], {"device": "cpu"}, 16),
        ([Machine(gpus=0, cpus=8), Machine(gpus=0, cpus=3)], {"cpus": 2}, 5),
        ([Machine(gpus=0, cpus=0), Machine(gpus=0, cpus=1)], {}, 1),  # a head that does no work
        ([Machine(gpus=0, cpus=0), Machine(gpus=1, cpus=0)], {}, 1),
    ],
)
def test_units_side_by_side(monkeypatch, machines, wanted, expected):
    on(monkeypatch, *machines)

    assert worker_slots(demand(**wanted)) == expected


def test_more_gpus_than_any_machine_has_are_refused_with_the_way_out(monkeypatch):
    on(monkeypatch, Machine(gpus=1, cpus=8), Machine(gpus=2, cpus=8))

    with pytest.raises(InputError, match=r"workers.gpus is 4 a unit, but the largest machine .* has 2; lower "):
        worker_slots(demand(gpus=4))


def test_a_gpu_is_not_waited_for_where_there_is_none(monkeypatch):
    on(monkeypatch, Machine(gpus=0, cpus=8))

    with pytest.raises(InputError, match=r"workers.gpus is 1 .* has 0; lower workers.gpus, set device to cpu or add"):
        worker_slots(demand(device="cuda"))
    assert not takes_gpu(demand(), capacity.machines())


def test_without_a_cluster_the_cores_of_this_machine_count(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    assert worker_slots(demand(device="cpu")) == os.cpu_count()
    with pytest.raises(InputError, match="this process"):
        worker_slots(demand(device="cpu", cpus=10_000))


@pytest.mark.parametrize("wrong", [{"gpus": 0}, {"gpus": 1.5}, {"gpus": -1}, {"gpus": float("nan")}, {"cpus": 0}])
def test_a_demand_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=r"workers\.(gpus|cpus) must be"):
        Workers(**wrong)


def test_a_preset_may_set_it():
    from tasks.config.runs import AugmentConfig

    config = load_preset(AugmentConfig, "digits", overrides={"workers.gpus": 0.5})

    assert config.workers == Workers(gpus=0.5)

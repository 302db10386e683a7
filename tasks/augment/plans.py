"""The plans of a run's rounds, as they lie in its store."""

from dataclasses import replace
from functools import lru_cache

from datasets.runs.plans import keep_plan, read_plan
from datasets.storage.store import Store
from tasks.augment.planning import RoundPlan, plan_name
from tasks.inputs.run_identity import RunIdentity


def load_or_create_plan(plan: RoundPlan, store: Store) -> RoundPlan:
    """Store a plan before the first of its units is made. Returns the plan that holds: one that lies there stands."""
    indices, groups = keep_plan(store, plan.name, indices=plan.indices, groups=plan.groups)
    return replace(plan, indices=indices, groups=groups)


def open_plan(name: str, run: RunIdentity, store: Store) -> RoundPlan:
    """A plan of the run, from its store or from this process's memory.

    Raises:
        ValueError: It is missing or damaged.
        StoreError: The store cannot be read.
    """
    return _open_plan(name, store.root, run.recipe, unit_size=run.config.plan.unit_size)


def run_plans(run: RunIdentity, store: Store, *, rounds: int) -> list[RoundPlan]:
    """The plans of a run that has drawn so many rounds: real images, candidates by round, baseline.

    Raises:
        ValueError: One is missing or damaged.
        StoreError: The store cannot be read.
    """
    names = [plan_name("real", 0), *(plan_name("minority", number) for number in range(rounds))]
    if rounds and run.config.plan.baseline:
        names.append(plan_name("plain", 0))
    return [open_plan(name, run, store) for name in names]


@lru_cache(maxsize=4)
def _open_plan(name: str, run_url: str, recipe: str, *, unit_size: int) -> RoundPlan:
    stored = read_plan(Store(run_url), name)
    if stored is None:
        raise ValueError(f"{run_url} has no sound plan {name}; run the same command again to make it.")
    indices, groups = stored
    sampler, _, number = name.partition("-")
    return RoundPlan(
        sampler=sampler,
        round=int(number),
        unit_size=unit_size,
        indices=indices,
        groups=groups,
    )

"""Three ways to a balanced training set: real images filled up with synthetic ones, synthetic ones, or weights."""

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from datasets.runs.records import WEIGHTS_SCHEMA
from datasets.runs.tables import conform_rows, replace_column

MODES = ("balanced", "synthetic", "weights")


def balance(
    real: pa.Table, synthetic: pa.Table, *, mode: str = "balanced", quotas: Mapping[str, int] | None = None
) -> pa.Table:
    """Decide which real and synthetic images are published.

    Args:
        real: Rows of METADATA_SCHEMA; kept = True where the image can be used.
        synthetic: Rows of METADATA_SCHEMA, the best first; kept = True where all filters let the candidate pass.
        mode: "balanced": all usable real images, and of each group as many synthetic ones as its quota still wants.
            "synthetic": synthetic images up to the quotas, no real one. "weights": the real images alone, to be
            published with `group_weights`.
        quotas: Group -> images in the published set; as many as the commonest group has real ones where not given.

    Returns:
        All rows, real ones first, with `kept` and `reason` as decided.

    Raises:
        ValueError: Another mode, a quota below 0 or for no group, or rows that break the schema.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    real, synthetic = conform_rows(real, name="the real rows"), conform_rows(synthetic, name="the synthetic rows")
    wanted = synthetic_quotas(real, quotas=quotas) if mode == "balanced" else _all_quotas(real, quotas=quotas)
    if mode == "weights":
        return pa.concat_tables([real, _refuse_all(synthetic, reason="weights only")])
    if mode == "synthetic":
        real = _refuse_all(real, reason="synthetic only")
    return pa.concat_tables([real, _up_to(synthetic, wanted=wanted)])


def synthetic_quotas(real: pa.Table, *, quotas: Mapping[str, int] | None = None) -> dict[str, int]:
    """Group -> synthetic images that are wanted beside the usable real ones; what RunFacts.quotas asks for.

    Args:
        real: Rows of METADATA_SCHEMA.
        quotas: As in `balance`.

    Raises:
        ValueError: A quota is below 0, or there are no groups.
    """
    have = _group_sizes(real)
    return {group: max(0, quota - have[group]) for group, quota in _all_quotas(real, quotas=quotas).items()}


def group_weights(rows: pa.Table) -> pa.Table:
    """Weights under which every group counts alike: N / (groups * size of the image's group), 1 on average.

    Args:
        rows: Rows of METADATA_SCHEMA; those with kept = True get a weight.

    Returns:
        A table in WEIGHTS_SCHEMA, in the order of the rows.

    Raises:
        ValueError: No row is kept.
    """
    kept = rows.filter(rows["kept"])
    if kept.num_rows == 0:
        raise ValueError("no image is kept, so that there is nothing to weigh; publish some.")
    groups = kept["group"].to_pylist()
    sizes = Counter(groups)
    weights = [kept.num_rows / (len(sizes) * sizes[group]) for group in groups]
    source_ids = kept["source_id"] if "source_id" in kept.column_names else pa.nulls(kept.num_rows, pa.string())
    columns = [kept["key"], source_ids, kept["group"], pa.array(weights, pa.float64())]
    return pa.Table.from_arrays(columns, schema=WEIGHTS_SCHEMA)


def _all_quotas(real: pa.Table, *, quotas: Mapping[str, int] | None) -> dict[str, int]:
    have = _group_sizes(real)
    if quotas is None:
        if not have:
            raise ValueError("there is no usable real image to take the quotas from; give quotas.")
        return dict.fromkeys(sorted(have), max(have.values()))
    wrong = [group for group, quota in quotas.items() if quota < 0]
    if wrong or not quotas:
        raise ValueError(f"quotas must name groups and be at least 0, got {dict(quotas)!r:.200}.")
    return dict(quotas)


def _group_sizes(rows: pa.Table) -> Counter[str]:
    return Counter(rows.filter(rows["kept"])["group"].to_pylist())


def _up_to(rows: pa.Table, *, wanted: Mapping[str, int]) -> pa.Table:
    left = dict(wanted)
    kept, reasons = [], []
    columns = (rows["group"].to_pylist(), rows["kept"].to_pylist(), rows["reason"].to_pylist())
    for group, passed, reason in zip(*columns, strict=True):
        taken = passed and left.get(group, 0) > 0
        if taken:
            left[group] -= 1
        kept.append(taken)
        reasons.append("kept" if taken else "quota full" if passed else reason)
    return replace_column(replace_column(rows, "kept", values=kept), "reason", values=reasons)


def _refuse_all(rows: pa.Table, *, reason: str) -> pa.Table:
    kept, reasons = rows["kept"].to_pylist(), rows["reason"].to_pylist()
    refused = [reason if was_kept else known for was_kept, known in zip(kept, reasons, strict=True)]
    rows = replace_column(rows, "kept", values=[False] * rows.num_rows)
    return replace_column(rows, "reason", values=refused)

"""Who reads what in an epoch: every published sample goes to exactly one consumer, in equal shares.

A consumer is one worker process of one node. The samples of all shards, in the epoch's order of shards, form one line;
it is cut into as many equal pieces as there are consumers, whatever the number of shards.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Segment:
    """Samples first, first + 1, ..., last - 1 of a shard."""

    shard: int
    first: int
    last: int


def epoch_order(num_shards: int, *, seed: int, epoch: int, shuffle: bool) -> list[int]:
    """The order of the shards in an epoch, the same for all consumers."""
    if not shuffle:
        return list(range(num_shards))
    return [int(shard) for shard in np.random.default_rng([seed, epoch]).permutation(num_shards)]


def segments(sizes: Sequence[int], order: Sequence[int], *, consumer: int, num_consumers: int) -> list[Segment]:
    """What one consumer reads.

    Args:
        sizes: Samples of each shard.
        order: The epoch's order of the shards.
        consumer: Which one, in [0, num_consumers). The first ones get one sample more where the line does not divide.
        num_consumers: How many share the line.

    Returns:
        Its segments, in order.
    """
    share, rest = divmod(sum(sizes), num_consumers)
    begin = consumer * share + min(consumer, rest)
    end = begin + share + (consumer < rest)
    listed = []
    at = 0
    for shard in order:
        first, last = max(begin - at, 0), min(end - at, sizes[shard])
        if first < last:
            listed.append(Segment(shard=shard, first=first, last=last))
        at += sizes[shard]
    return listed


def natural_rates(sizes: Mapping[tuple[str, str], int], *, synthetic_share: float) -> dict[tuple[str, str], float]:
    """How often a sample of each (group, source) comes in an epoch so that a share of it is synthetic.

    No sample comes twice: the source of which there is too much is thinned.

    Args:
        sizes: (group, source) -> published samples.
        synthetic_share: Share of the epoch that is synthetic, in [0, 1].

    Raises:
        ValueError: There is nothing of a source that is asked for.
    """
    shares = {"real": 1 - synthetic_share, "synthetic": synthetic_share}
    have = {source: sum(size for (_, of), size in sizes.items() if of == source) for source in shares}
    absent = [source for source, share in shares.items() if share > 0 and have[source] == 0]
    if absent:
        raise ValueError(f"synthetic_share is {synthetic_share}, but the set has no {absent[0]} image; leave it out.")
    total = min(have[source] / share for source, share in shares.items() if share > 0)
    rate = {source: min(1.0, total * share / have[source]) if have[source] else 0.0 for source, share in shares.items()}
    return {name: rate[name[1]] for name in sizes}


def balanced_rates(
    sizes: Mapping[tuple[str, str], int], *, synthetic_share: float | None
) -> dict[tuple[str, str], float]:
    """How often a sample of each (group, source) comes in an epoch so that every group comes equally often.

    No sample comes less than once unless the ratio of sources asks for it: small groups are repeated.

    Args:
        sizes: (group, source) -> published samples.
        synthetic_share: Share of every group that is synthetic, in [0, 1]; a group that lacks a source takes the other.
            None leaves the ratio as it is.

    Raises:
        ValueError: There are no samples.
    """
    groups = sorted({group for group, _ in sizes})
    if not groups:
        raise ValueError("the set has no published image; publish some.")
    shares: dict[tuple[str, str], float] = {}
    for group in groups:
        have = {source: sizes.get((group, source), 0) for source in ("real", "synthetic")}
        if synthetic_share is None or not all(have.values()):
            wanted = {source: size / sum(have.values()) for source, size in have.items()}
        else:
            wanted = {"real": 1 - synthetic_share, "synthetic": synthetic_share}
        shares |= {(group, source): share for source, share in wanted.items()}
    sums = {group: sum(size for (of, _), size in sizes.items() if of == group) for group in groups}
    target = max(sums.values())
    return {name: target * shares[name] / size for name, size in sizes.items() if size}


def repeats(rate: float, *, key: str, seed: int, epoch: int) -> int:
    """How often a sample comes in an epoch: the rate rounded down or up, by a hash, so that the mean is the rate."""
    whole = int(rate)
    if rate == whole:
        return whole
    digest = hashlib.blake2b(f"{seed}:{epoch}:{key}".encode(), digest_size=6).digest()
    return whole + (int.from_bytes(digest, "big") / 2**48 < rate - whole)

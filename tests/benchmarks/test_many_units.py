"""What a unit costs beside its images, by the benchmark that measures it, at a small size."""

import pytest

from benchmarks.many_units import MIB, measure


@pytest.mark.slow
def test_a_unit_more_costs_little_memory_and_little_of_the_servers_database(tmp_path):
    few, many = (measure(units, folder=tmp_path / str(units)) for units in (200, 600))

    more = many.units - few.units
    assert more >= 390
    # A task run costs 17 kB and more; several units share one.
    assert (many.database_mib - few.database_mib) * MIB / more < 10_000
    # What is kept of a unit of one image: its plan, verdicts and random projection, and a row of the table; the rest is
    # noise of the allocator, some MiB.
    assert (many.peak_mib - few.peak_mib) * MIB / more < 50_000

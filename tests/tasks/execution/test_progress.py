from datetime import timedelta

from tasks.execution.progress import Pace


def test_the_pace_is_what_was_done_a_second():
    pace = Pace(100.0)
    pace.add(110.0, 20)

    assert pace.rate == 2.0
    assert pace.left(50) == timedelta(seconds=15)


def test_before_anything_is_done_there_is_no_pace():
    pace = Pace(100.0)
    pace.add(110.0, 0)

    assert pace.left(50) is None


def test_units_found_in_the_store_are_soon_forgotten():
    pace = Pace(0.0)
    pace.add(1.0, 1000)
    for second in range(10, 400, 10):
        pace.add(float(second), 1000 + second)

    assert abs(pace.rate - 1.0) < 1e-9

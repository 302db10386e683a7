"""Progress before a command: lines where output is piped, bars on a terminal, nothing where it is to be quiet."""

import io
import os
import pty
import select
import sys

from minority.runtime.progress import counted
from tasks.execution.terminal import Board, progress_shown, stage_shown


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def piped():
    stream, clock = io.StringIO(), Clock()
    return Board(stream, bars=False, clock=clock), clock, lambda: stream.getvalue().splitlines()


def test_a_stage_has_a_line_at_its_end_however_short_it_was():
    board, clock, lines = piped()

    with board.stage("round 0", "samples") as count:
        clock.now += 0.5
        count(4, 8)
        clock.now += 0.5
        count(8, 8)

    assert lines() == ["progress: round 0: 8 of 8 samples, 8 samples/s, 0:00:00 left"]


def test_a_long_stage_has_a_line_every_half_minute():
    board, clock, lines = piped()

    with board.stage("round 0", "samples") as count:
        for done in range(1, 101):
            clock.now += 1
            count(done, 100)

    assert [line.split(",")[0] for line in lines()] == [
        f"progress: round 0: {done} of 100 samples" for done in (30, 60, 90, 100)
    ]
    assert lines()[0].endswith("1 samples/s, 0:01:10 left")


def test_a_loop_of_a_moment_is_not_told_and_a_longer_one_is():
    board, clock, lines = piped()

    with board.loop("features", "images") as count:
        count(64, 64)
    with board.loop("bits/dim", "images") as count:
        clock.now += 3
        count(64, 64)

    assert [line.split(",")[0] for line in lines()] == ["progress: bits/dim: 64 of 64 images"]


def test_what_the_parts_of_a_stage_count_is_not_shown_beside_it():
    board, clock, lines = piped()

    with board.stage("round 0", "samples") as whole:
        with board.loop("samples", "samples") as part:
            clock.now += 60
            part(1, 2)
        whole(2, 2)

    assert [line.split(",")[0] for line in lines()] == ["progress: round 0: 2 of 2 samples"]


def test_names_from_outside_cannot_move_the_cursor():
    board, _, lines = piped()

    with board.stage("a\x1b[2Jb", "samples") as count:
        count(1, 1)

    assert "\x1b" not in lines()[0]


def test_nothing_is_written_where_it_is_to_be_silent(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    with progress_shown(silent=True), stage_shown("round 0", unit="samples") as count:
        count(1, 1)
        with counted("inside", unit="steps") as steps:
            steps(1, 1)

    assert stream.getvalue() == ""


def test_a_run_that_no_command_started_tells_nothing_where_output_is_piped(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    with stage_shown("round 0", unit="samples") as count:
        count(1, 1)

    assert stream.getvalue() == ""


def test_a_terminal_shows_bars_one_below_the_other(monkeypatch):
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with progress_shown():
            for name in ("round 0", "round 1"):
                with stage_shown(name, unit="samples") as count:
                    count(1, 2)
                    count(2, 2)
        terminal.flush()
        shown = b""
        while select.select([leader], [], [], 0)[0]:
            shown += os.read(leader, 4096)
    os.close(leader)
    shown = shown.decode()

    # What is last on the screen of either stage is its full bar, and the second begins below the first.
    assert shown.count("2/2") >= 2
    assert shown.index("round 0") < shown.rindex("round 0") < shown.index("round 1")
    assert "\n" in shown[shown.rindex("round 0") : shown.index("round 1")]
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back

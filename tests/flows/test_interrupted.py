"""Ctrl-C and TERM: one line, exit code 130, nothing left running, and the same command ends in the same bytes."""

import os
import pty
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import operation  # beside this file
import pytest

from datasets.storage.store import Store

pytestmark = pytest.mark.system

MINORITY = Path(sys.executable).with_name("minority")
SAID = "interrupted; run the same command again to go on."


def files_in(store):
    """How many files the store shows: it grows as the run goes on, whatever the machine's speed."""
    return sum(not name.startswith(".") for _, _, names in os.walk(store) for name in names)


def wait_for_files(store, pid, *, files):
    """Until the store has so many files; whether the run still goes on."""
    while files_in(store) < files:
        if not Path("/proc", str(pid), "exe").exists():
            return False
        time.sleep(0.002)
    return True


@pytest.mark.parametrize(
    ("number", "share"),
    [
        pytest.param(signal.SIGINT, 0.02, marks=pytest.mark.slow, id="filters"),
        pytest.param(signal.SIGTERM, 0.4, id="drawing"),
        pytest.param(signal.SIGINT, 0.9, marks=pytest.mark.slow, id="classifiers"),
    ],
)
def test_an_interrupted_run_says_one_line_and_goes_on(
    minority, tiny_overrides, as_options, undisturbed, contents, tmp_path, number, share
):
    whole, store = contents(undisturbed.store), tmp_path / "store"
    command = ["augment", "digits", "--store", store, *as_options(tiny_overrides)]

    pid = minority.start(*command)
    assert wait_for_files(store, pid, files=int(share * len(whole)))
    os.kill(pid, number)
    interrupted = minority.finish()

    assert (interrupted.code, interrupted.stderr) == (130, f"{SAID}\n")
    assert interrupted.stdout == ""
    assert operation.descendants(pid) == []

    finished = minority(*command)

    assert (finished.code, finished.stderr) == (0, "")
    assert contents(store) == whole
    Store(store).clean_temporary()


class Terminal:
    """A command in a terminal of its own, with the server that it starts for itself."""

    def __init__(self, *arguments, home):
        environment = os.environ | {"PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1", "TERM": "xterm"}
        environment |= {"PYTHONPATH": str(operation.ROOT)}
        environment.pop("PREFECT_API_URL", None)
        environment.pop("PREFECT_LOGGING_LEVEL", None)
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execve(MINORITY, ["minority", *map(str, arguments)], environment)
        self.shown = b""

    def read_until(self, condition, *, seconds=300):
        """Read what it shows until something is true, or it ends."""
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            if select.select([self._terminal], [], [], 0.01)[0]:
                try:
                    shown = os.read(self._terminal, 65536)
                except OSError:  # the last process that wrote to it has ended
                    return
                self.shown += shown

    def press_control_c(self):
        """What the keys do: the terminal interrupts all processes in its foreground."""
        os.write(self._terminal, b"\x03")

    def end(self):
        """Read to the end. Returns the exit code."""
        self.read_until(lambda: False)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)


def of_home(home):
    """The processes that have this PREFECT_HOME."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and f"PREFECT_HOME={home}".encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
    return found


def while_it_starts(terminal, home, store):
    end = time.monotonic() + 1.0
    return lambda: time.monotonic() > end


def while_its_server_starts(terminal, home, store):
    return lambda: len(of_home(home)) > 1


def while_it_draws(terminal, home, store):
    return lambda: files_in(store) > 12


@pytest.mark.parametrize(
    "when",
    [
        while_it_starts,
        pytest.param(while_its_server_starts, marks=pytest.mark.slow),
        pytest.param(while_it_draws, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("presses", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_control_c_in_a_terminal_leaves_one_line_and_no_process(tmp_path, tiny_overrides, as_options, when, presses):
    home, store = tmp_path / "home", tmp_path / "store"
    terminal = Terminal("augment", "digits", "--store", store, *as_options(tiny_overrides), home=home)
    terminal.read_until(when(terminal, home, store))
    before = len(terminal.shown)

    for _ in range(presses):
        terminal.press_control_c()
        time.sleep(0.2)
    code = terminal.end()

    assert code == 130, terminal.shown
    shown = terminal.shown[before:].decode(errors="replace")
    assert SAID in shown
    assert "Traceback" not in shown
    assert shown.count("interrupted") == 1
    operation.wait_until(lambda: not of_home(home), seconds=60, what="the temporary server to end")

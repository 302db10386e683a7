"""What a Ctrl-C does where Python code that runs could lose it."""

import signal
import subprocess
import sys
import textwrap

import operation  # beside this file
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


def interrupted(tmp_path, script, *, times=1):
    """Run a script that says when it is ready, and interrupt it then. Returns exit code and what it said of it."""
    (tmp_path / "swallows.py").write_text(
        "import time\nprint('ready', flush=True)\ntry:\n    time.sleep(30)\nexcept BaseException:\n    pass\n"
    )
    head = f"import sys\nsys.path[:0] = [{str(operation.ROOT)!r}, {str(tmp_path)!r}]\n"
    head += "from flows.interruption import end_on_signals\nend_on_signals()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=25)[1]
    return process.returncode, said


def test_an_import_that_catches_everything_does_not_lose_it(tmp_path):
    code, said = interrupted(tmp_path, "import swallows\nprint('went on')")

    assert (code, said.count("interrupted;")) == (130, 1)


def test_the_second_one_ends_what_lost_the_first(tmp_path):
    script = """
        import os, signal, time
        print('ready', flush=True)
        try:
            time.sleep(30)
        except BaseException:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
    """

    code, said = interrupted(tmp_path, script)

    assert (code, said.count("interrupted;")) == (130, 1)


def test_one_that_comes_while_python_takes_itself_apart_changes_no_exit_code():
    script = f"""
import atexit, os, signal, sys
sys.path.insert(0, {str(operation.ROOT)!r})
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))  # what is registered first comes last
atexit.register(lambda: print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN))
from flows.interruption import end_on_signals
end_on_signals()
sys.exit(3)
"""

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=25, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (3, "True\n", "")

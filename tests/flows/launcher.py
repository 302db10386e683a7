"""Runs the command line again and again in processes of their own, without importing torch each time.

Reads requests from standard input, one JSON object a line: {"args": [...], "stdout": file, "stderr": file}, and where
something shall happen to the run {"fault": {...}}, see injection.py. Each is run by a fork of this process exactly as
`minority ARGS` would; answers {"pid": ...} at once and {"code": ...} at the end.
"""

import atexit
import gc
import importlib
import json
import os
import sys
import threading
import traceback

import injection  # beside this file

import flows.command_line  # sets Prefect up, before anything imports it

#: What the commands import when they need it.
WANTED = (
    "datasets.runs.verify",
    "fastapi",
    "flows.augment",
    "flows.result_table",
    "matplotlib.backends.backend_svg",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "pyarrow.parquet",
    "tasks.checks",
    "tasks.commands.images",
    "tasks.report",
)


def main():
    """Serve until standard input ends."""
    for module in WANTED:
        importlib.import_module(module)
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        injection.sleep_by_select()
    gc.freeze()  # forks need not look through all of it
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(request)
            run_and_exit()
        answer(pid=pid)
        _, status = os.waitpid(pid, 0)
        answer(code=os.waitstatus_to_exitcode(status))


def become(request):
    """Turn this fork into a run of the command line."""
    for descriptor, name in ((0, os.devnull), (1, request["stdout"]), (2, request["stderr"])):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv = ["minority", *request["args"]]
    if request.get("fault"):
        injection.install(request["fault"])


def run_and_exit():
    """Run the command and end as Python ends, but for the clearing of memory, which costs a fork seconds."""
    code = 0
    try:
        flows.command_line.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def answer(**content):
    """One line to whoever asked."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

import json
import logging
import threading

import pytest
from prefect.logging.formatters import JsonFormatter

from tasks.execution.log_ids import log_ids


@pytest.fixture
def lines():
    """Every record that the logger "library" gets while the test runs, as Prefect's JSON formatter writes it."""
    logger, written = logging.getLogger("library"), []
    formatter = JsonFormatter("default", None, "%")

    class Keep(logging.Handler):
        def emit(self, record):
            written.append(json.loads(formatter.format(record)) | {"message": record.getMessage()})

    handler = Keep()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield written
    logger.removeHandler(handler)


def test_every_line_of_any_library_names_run_and_unit(lines):
    with log_ids(run="0123456789ab"), log_ids(unit="minority-00-00001"):
        logging.getLogger("library").info("%d of %s", 3, "100 %")

    (line,) = lines
    assert line["message"] == "run 0123456789ab unit minority-00-00001: 3 of 100 %"
    assert (line["run_id"], line["unit_id"]) == ("0123456789ab", "minority-00-00001")


def test_outside_of_the_block_lines_are_as_they_were(lines):
    with log_ids(run="a"):
        pass
    logging.getLogger("library").info("plain")

    assert lines[0]["message"] == "plain"
    assert "run_id" not in lines[0]


def test_threads_do_not_mix_their_units(lines):
    together = threading.Barrier(2)

    def work(unit):
        with log_ids(run="a", unit=unit):
            together.wait(30)
            logging.getLogger("library").info("drawn by %s", unit)

    threads = [threading.Thread(target=work, args=(unit,)) for unit in ("u1", "u2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(line["message"] for line in lines) == ["run a unit u1: drawn by u1", "run a unit u2: drawn by u2"]

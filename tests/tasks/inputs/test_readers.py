from typing import get_args

from tasks.config.sections import Reader
from tasks.inputs.readers import READERS


def test_every_reader_that_a_config_can_name_is_registered():
    assert set(READERS) == set(get_args(Reader))

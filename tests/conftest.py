"""Settings that hold for every test."""

import os

# Before anything imports prefect: a developer's profile or .env must not redirect the tests, and nothing phones home.
os.environ["PREFECT_API_URL"] = ""
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

import torch

# One thread: the same bytes whatever the number of cores, and no contention between tests and servers.
torch.set_num_threads(1)

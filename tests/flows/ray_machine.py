"""`ray start`, which gives a machine half a minute to come up, with more patience: tests run on busy hosts."""

from functools import partial

from ray._private import services
from ray.scripts.scripts import main

if __name__ == "__main__":
    services.get_node = partial(services.get_node_with_retry, timeout_s=300)
    main()

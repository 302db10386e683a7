"""How work is spread over workers: fan-out, capacity, failures, progress."""

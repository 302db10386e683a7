"""One of several processes that train a backbone together; started by tasks/backbone/training_processes.py."""

import os
import sys
import threading
from pathlib import Path

from minority.training.process_group import ManyProcesses
from tasks.backbone.train import train_here
from tasks.config.runs import TrainBackboneConfig
from tasks.inputs.workspace import choose_device


def main() -> None:
    """Train the backbone whose config is in the file that the first argument names."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    config = TrainBackboneConfig.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    process_group = ManyProcesses.join(cpu=choose_device(config.device) == "cpu")
    train_here(config, process_group=process_group, on_step=lambda step: None, on_evaluation=lambda picture: None)


def _end_with_the_parent() -> None:
    # Nobody writes into this pipe: it ends when whoever started the training is gone. Reading by sys.stdin would hold
    # a lock that the interpreter needs in order to end.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()

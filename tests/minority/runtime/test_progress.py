"""Loops are heard of while somebody listens, under the name that whoever starts them gave them."""

import threading
from contextlib import contextmanager

import numpy as np

from minority.classifier import ClassifierSettings, train_classifier
from minority.runtime.memory import in_batches
from minority.runtime.progress import called, counted, heard_by


class Heard:
    def __init__(self):
        self.loops = {}

    @contextmanager
    def __call__(self, name, unit):
        counts = self.loops.setdefault((name, unit), [])
        yield lambda done, total: counts.append((done, total))


def test_nobody_has_to_listen():
    with counted("loop", unit="steps") as count:
        count(1, 2)


def test_batches_are_counted_as_they_are_done():
    heard = Heard()

    with heard_by(heard):
        in_batches(5, size=2, work=lambda part: part, what="images")
    in_batches(5, size=2, work=lambda part: part, what="images")

    assert heard.loops == {("images", "images"): [(2, 5), (4, 5), (5, 5)]}


def test_a_loop_has_the_innermost_name_it_was_given_and_its_own_again_afterwards():
    heard = Heard()

    with heard_by(heard):
        with called("outer"):
            with called("inner"), counted("own", unit="steps") as count:
                count(1, 1)
            with counted("own", unit="steps") as count:
                count(1, 1)
        with counted("own", unit="steps") as count:
            count(1, 1)

    assert [name for name, _ in heard.loops] == ["inner", "outer", "own"]


def test_loops_of_other_threads_are_heard_too():
    heard = Heard()

    def work():
        with counted("elsewhere", unit="steps") as count:
            count(1, 1)

    with heard_by(heard):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    assert ("elsewhere", "steps") in heard.loops


def test_a_classifiers_training_counts_its_steps_and_is_not_changed_by_it():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    labels = np.array([0, 1, 0, 1, 0, 1])
    settings = ClassifierSettings(steps=3, batch_size=4, width=4)
    heard = Heard()

    plain = train_classifier(images, labels, num_classes=2, settings=settings, seed=1)
    with heard_by(heard):
        shown = train_classifier(images, labels, num_classes=2, settings=settings, seed=1)

    assert heard.loops == {("training a classifier", "steps"): [(1, 3), (2, 3), (3, 3)]}
    assert all((a == b).all() for a, b in zip(plain.parameters(), shown.parameters(), strict=True))

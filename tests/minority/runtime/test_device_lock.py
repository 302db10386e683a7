import threading

import numpy as np
import pytest
import torch

from minority.diffusion.noise import SampleNoise
from minority.guidance.self_guidance import SelfGuidance
from minority.runtime.device_lock import device_lock
from minority.sampling.draw import SamplerSettings, draw_images
from minority.sampling.noise_prefetch import NoisePrefetch, sample_noise

SHAPE = (1, 4, 4)


def most_at_once(device):
    """The most of four threads that hold the device at one time; each waits for company until it comes or cannot."""
    inside, most, lock = 0, 0, threading.Lock()
    company = threading.Event()

    def work():
        nonlocal inside, most
        with device_lock(device):
            with lock:
                inside += 1
                most = max(most, inside)
                if inside > 1:
                    company.set()
            company.wait(0.2)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return most


def test_a_gpu_is_held_by_one_batch_at_a_time():
    assert most_at_once("cuda:7") == 1


def test_nobody_waits_for_a_cpu():
    assert most_at_once("cpu") > 1


def test_a_thread_that_fails_releases_its_lock():
    def fail():
        with device_lock("cuda:6"):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fail()
    with device_lock("cuda:6"):
        pass
    assert most_at_once("cuda:6") == 1


class Counted(SampleNoise):
    """Remembers what is drawn, in order."""

    def __init__(self):
        super().__init__(3, [0, 5], shape=SHAPE)
        self.drawn = []
        self.news = threading.Condition()

    def wait_for(self, *address):
        """Wait until something is drawn; whether it was."""
        with self.news:
            return self.news.wait_for(lambda: address in self.drawn, timeout=30)

    def note(self, *address):
        with self.news:
            self.drawn.append(address)
            self.news.notify_all()

    def ancestral(self, step):
        self.note("ancestral", step)
        return super().ancestral(step)

    def perturbation(self, step, draw):
        self.note("perturbation", step, draw)
        return super().perturbation(step, draw)


def test_prefetched_noise_is_the_same_noise():
    plain = SampleNoise(3, [0, 5], shape=SHAPE)

    with NoisePrefetch(Counted()) as prefetch:
        assert torch.equal(prefetch.start(), plain.start())
        for step in range(9, 0, -1):
            if step % 4 == 0:
                for draw in range(2):
                    assert torch.equal(prefetch.perturbation(step, draw), plain.perturbation(step, draw))
            assert torch.equal(prefetch.ancestral(step), plain.ancestral(step))
        assert torch.equal(prefetch.score(2, 1), plain.score(2, 1))
        assert torch.equal(prefetch.particle_weight(2, 1), plain.particle_weight(2, 1))
        assert torch.equal(prefetch.probe(2, 1), plain.probe(2, 1))


def test_the_noise_of_the_next_step_is_drawn_before_it_is_asked_for():
    source = Counted()

    with NoisePrefetch(source) as prefetch:
        prefetch.ancestral(3)
        assert source.wait_for("ancestral", 2)
        prefetch.perturbation(9, 0)
        prefetch.perturbation(6, 0)
        assert source.wait_for("perturbation", 3, 0)

    assert len(source.drawn) == 5


def test_nothing_is_prefetched_beyond_the_end_of_the_chain():
    source = Counted()

    with NoisePrefetch(source) as prefetch:
        prefetch.ancestral(1)
        prefetch.perturbation(4, 0)
        prefetch.perturbation(0, 0)

    assert source.drawn == [("ancestral", 1), ("perturbation", 4, 0), ("perturbation", 0, 0)]


def test_on_a_cpu_noise_is_drawn_when_it_is_asked_for():
    with sample_noise(0, [1], shape=SHAPE, device="cpu") as noise:
        assert isinstance(noise, SampleNoise)


def test_units_that_overlap_draw_the_same_images_as_units_one_by_one(backbone):
    settings = SamplerSettings(steps=4, self_guidance=SelfGuidance(scale=2.0, interval=2), batch_size=2)
    units = [range(4), range(4, 8)]
    found = {}

    def unit(indices):
        labels = [i % 3 for i in indices]
        return draw_images(backbone, seed=1, indices=indices, labels=labels, settings=settings)[0]

    threads = [threading.Thread(target=lambda u=u: found.update({u: unit(u)})) for u in units]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for indices in units:
        np.testing.assert_array_equal(found[indices], unit(indices))

"""Time and memory of scoring a large generated set against a large real one.

    .venv/bin/python -m benchmarks.large_sets --real 50000 --generated 50000 --features 2048 --threads 2

Features are float32 draws from a normal of low rank plus noise, like those of a network. What is scored: neighbours,
local outlier factor, rarity score, precision, recall, density and coverage; and FID with --fid, whose cost is that of
matrix functions of the number of features.
"""

import argparse
import resource
import time

import numpy as np
import torch

from minority.metrics import frechet_distance
from minority.neighbours import ball_membership, outlier_factor
from minority.pairwise import nearest


def features(count: int, dimensions: int, *, rank: int, seed: int, scale: float) -> np.ndarray:
    """(count, dimensions) float32, made in parts so that making them takes no memory of its own."""
    basis = np.random.default_rng(0).normal(size=(rank, dimensions)).astype(np.float32)
    rng, made = np.random.default_rng(seed), np.empty((count, dimensions), dtype=np.float32)
    for start in range(0, count, 2048):
        rows = min(2048, count - start)
        part = scale * rng.normal(size=(rows, rank)).astype(np.float32) @ basis
        made[start : start + rows] = part + 0.3 * rng.normal(size=(rows, dimensions)).astype(np.float32)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=int, default=50_000)
    parser.add_argument("--generated", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--rank", type=int, default=32, help="directions in which the features mostly vary")
    parser.add_argument("--neighbours", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fid", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    real = features(arguments.real, arguments.features, rank=arguments.rank, seed=1, scale=1.0)
    generated = features(arguments.generated, arguments.features, rank=arguments.rank, seed=2, scale=1.2)
    started, k = time.perf_counter(), arguments.neighbours

    def note(what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{what:<36} {time.perf_counter() - started:8.0f} s   peak memory {peak:.2f} GiB", flush=True)

    note("features")
    own, neighbours = nearest(real, real, k=k, leave_out_self=True)
    note("neighbours among real images")
    distances, found = nearest(generated, real, k=k)
    note("neighbours of generated images")
    print(f"  avg_knn {distances.mean():.4f}, lof {outlier_factor(own, neighbours, distances, found).mean():.4f}")
    membership = ball_membership(generated, real, own[:, -1])
    note("precision, density, coverage, rarity")
    radii = nearest(generated, generated, k=k, leave_out_self=True)[0][:, -1]
    recall = (ball_membership(real, generated, radii).balls > 0).mean()
    note("recall")
    precision, density = (membership.balls > 0).mean(), membership.balls.mean() / k
    print(f"  precision {precision:.4f}, recall {recall:.4f}, density {density:.4f}")
    if arguments.fid:
        print(f"  fid {frechet_distance(real, generated):.4f}")
        note("fid")


if __name__ == "__main__":
    main()

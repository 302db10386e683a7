"""Time and memory of scoring a large generated set against a large real one.

    .venv/bin/python -m benchmarks.large_sets --real 50000 --generated 50000 --features 2048 --threads 2

Features are float32 draws from a normal of low rank plus noise, like those of a network. Measured are the scores of
every image (neighbours, local outlier factor, realism, rarity score, copies), the metrics of the set that need
neighbours, and FID, whose cost is that of matrix functions of the number of features. Times are processor seconds.
"""

import argparse
import resource
import time

import numpy as np
import torch

from minority.evaluation.metrics import compare_pairs, frechet_distance
from minority.neighbours.reference import RealReference

WHAT = ("images", "set", "fid")


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
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    real = features(arguments.real, arguments.features, rank=arguments.rank, seed=1, scale=1.0)
    generated = features(arguments.generated, arguments.features, rank=arguments.rank, seed=2, scale=1.2)
    started, k = time.process_time(), arguments.neighbours

    def note(what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{what:<36} {time.process_time() - started:8.0f} s   peak memory {peak:.2f} GiB", flush=True)

    note("features")
    if "images" in arguments.what:
        reference = RealReference.fit(real, k=k)
        note("real images fitted")
        scores = reference.locate(generated)
        note("every generated image scored")
        inside = scores.rarity[np.isfinite(scores.rarity)]
        print(f"  avg_knn {scores.knn_distance.mean():.4f}, lof {scores.lof.mean():.4f}, rarity {inside.mean():.4f}")
    if "set" in arguments.what:
        pairs = compare_pairs(real, generated, k=k)
        note("neighbours, precision, recall ...")
        counts = pairs.balls.counts
        print(f"  avg_knn {pairs.to_real.distances.mean():.4f}, lof {pairs.lof.mean():.4f}")
        print(f"  precision {(counts > 0).mean():.4f}, recall {pairs.recalled.mean():.4f}")
        print(f"  density {counts.mean() / k:.4f}, coverage {pairs.balls.covered.mean():.4f}")
    if "fid" in arguments.what:
        print(f"  fid {frechet_distance(real, generated):.4f}")
        note("fid")


if __name__ == "__main__":
    main()

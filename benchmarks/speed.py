"""How fast samplers run: against the published loop, against plain sampling, and against the machine.

    .venv/bin/python -m benchmarks.speed --backbone backbones/digits
    .venv/bin/python -m benchmarks.speed --backbone celeba64 --steps 250 --out runs/benchmark/speed
    .venv/bin/python -m benchmarks.speed --backbone imagenet64 --engines fp32,bf16+channels_last+compile

`celeba64` and `imagenet64` are ADM U-Nets with random weights: at full width on a GPU, at --width channels on a CPU.
All rows are drawn in turns, --repeats times; figures are medians. Needs Python, torch, diffusers and this checkout, no
Prefect, so it runs on a bare GPU machine.

The published loop (benchmarks/published_loop.py) runs the same network as it is published: eager, three forward passes
and one backward pass a guided step, weights with gradients, noise drawn on the device. An engine is a precision and
options of minority/engine/prepare.py, joined by "+". `sgms-published` takes the same steps and makes, up to rounding,
the same images; the line above the table tells how far apart they are when both are given the same noise.

Time is that of the processor on a CPU and of the wall on a GPU. "of peak" is the arithmetic of all passes over what a
large product of matrices reaches here in the row's precision.
"""

import argparse
from pathlib import Path
from statistics import median

import torch

from benchmarks.machine import PeakMemory, clock, describe_machine, matrix_rate, memory_rate
from benchmarks.network_work import NetworkWork, profile
from benchmarks.speed_arms import DTYPES, PLAIN, SAME, Arm, Bench, open_network
from benchmarks.tables import keep, markdown
from minority.backbones.backbone import Precision

ENGINES = {
    "cpu": "fp32,fp32+channels_last,fp32+compile+channels_last",
    "cuda": "fp32,fp16+channels_last,bf16+channels_last,bf16+channels_last+compile,bf16+channels_last+cuda_graphs",
}
SAMPLERS = "ancestral,jacobian-free,boost-and-skip,boost-and-guide,dpm-solver"


def measure(arms: list[Arm], *, repeats: int, device: str) -> None:
    """Draw every arm once to warm up, then all of them in turns."""
    for arm in arms:
        start = clock(device)
        arm.passes = arm.draw()
        arm.first = clock(device) - start
        print(f"{arm.sampler}, {arm.engine}: first batch in {arm.first:.1f} s", flush=True)
    for repeat in range(repeats):
        for arm in arms:
            memory = PeakMemory(device) if repeat == 0 else None
            start = clock(device)
            arm.draw()
            arm.seconds.append(clock(device) - start)
            arm.mebibytes = memory.mebibytes() if memory else arm.mebibytes


def rows_of(
    arms: list[Arm], *, batch: int, work: NetworkWork, rates: dict[Precision, float]
) -> list[dict[str, object]]:
    """One row an arm; the first is the published loop, and one is plain sampling."""
    published = median(arms[0].seconds)
    plain = next(median(arm.seconds) for arm in arms if arm.sampler == PLAIN)
    rows = []
    for arm in arms:
        seconds = median(arm.seconds)
        rows.append(
            {
                "sampler": arm.sampler,
                "engine": arm.engine,
                "samples a second": batch / seconds,
                "times the published loop": published / seconds,
                "time of plain": seconds / plain,
                "forward / backward": f"{arm.passes[0]:g} / {arm.passes[1]:g}",
                "of peak, %": 100 * work.flop(*arm.passes) / seconds / rates[arm.precision],
                "peak MiB": arm.mebibytes,
                "first batch, s": arm.first,
            }
        )
    return rows


def roofline(work: NetworkWork, *, rates: dict[Precision, float], bandwidth: float, batch: int) -> list[str]:
    """What the network asks and what the machine gives, one line a precision."""
    lines = [
        f"Network: {work.forward / batch / 1e9:.3g} GFLOP a sample and forward pass, backward pass to the input "
        f"{work.backward / work.forward:.2f} times that; {work.intensity:.3g} FLOP a byte in fp32, unfused."
    ]
    for precision, rate in rates.items():
        bytes_each = DTYPES[precision].itemsize
        intensity = work.intensity * 4 / bytes_each
        ridge, attainable = rate / bandwidth, min(rate, intensity * bandwidth)
        bound = "arithmetic" if intensity >= ridge else "memory"
        lines.append(
            f"Roofline, {precision}: {rate / 1e12:.3g} TFLOP/s, {bandwidth / 1e9:.3g} GB/s, ridge at {ridge:.3g} FLOP "
            f"a byte, network at {intensity:.3g}: bound by {bound}, {100 * attainable / rate:.0f} % of peak attainable."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--backbone", default="celeba64", help="celeba64, imagenet64, or the path of a backbone")
    parser.add_argument("--width", type=int, default=None if device == "cuda" else 32, help="channels of an ADM U-Net")
    parser.add_argument("--steps", type=int, default=250 if device == "cuda" else 20)
    parser.add_argument("--batch", type=int, default=64 if device == "cuda" else 8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", default=ENGINES[device], help="the last one also runs --samplers")
    parser.add_argument("--samplers", default=SAMPLERS)
    parser.add_argument("--published", default="fp32,fp16" if device == "cuda" else "fp32", help="precisions")
    parser.add_argument("--profile", action="store_true", help="also where the time of the SGMS rows goes")
    parser.add_argument("--out", type=Path, default=None, help="folder that receives speed.md and speed.json")
    arguments = parser.parse_args()
    engines = arguments.engines.split(",")
    names = [PLAIN, *(name for name in arguments.samplers.split(",") if name != PLAIN)]
    backbone = open_network(arguments.backbone, width=arguments.width)
    bench = Bench(backbone, steps=arguments.steps, batch=arguments.batch, device=device)
    arms = [bench.published(precision) for precision in arguments.published.split(",")]
    arms += [bench.ours(SAME, engine) for engine in engines] + [bench.ours(name, engines[-1]) for name in names]
    rates = {precision: matrix_rate(device, DTYPES[precision]) for precision in {arm.precision: None for arm in arms}}
    work, difference = bench.work(), bench.difference()
    measure(arms, repeats=arguments.repeats, device=device)
    machine = describe_machine(device)
    rows = rows_of(arms, batch=arguments.batch, work=work, rates=rates)
    lines = [
        f"## Speed of {backbone.name}, {arguments.steps} steps, batches of {arguments.batch}\n\n{machine}\n",
        f"Published loop and ours with the same noise, fp32: pixels differ by at most {difference} of 255.\n",
        markdown(rows),
        "",
        *roofline(work, rates=rates, bandwidth=memory_rate(device), batch=arguments.batch),
    ]
    if arguments.profile:
        for arm in [*arms[:1], *(arm for arm in arms if arm.sampler == SAME)]:
            lines += [f"\n### {arm.sampler}, {arm.engine}\n", markdown(profile(arm.draw, device=device))]
    print("\n".join(lines))
    keep(arguments.out, "speed", text="\n".join(lines), content={"machine": machine, "rows": rows, "lines": lines})


if __name__ == "__main__":
    main()

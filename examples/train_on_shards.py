"""A training job of its own on a published dataset: python examples/train_on_shards.py MANIFEST [EPOCHS]"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from datasets import EpochProgress, load_balanced
from datasets.runs.manifest import Manifest
from datasets.storage.store import Store


def main(manifest_url: str, epochs: int = 3) -> float:
    folder, _, name = manifest_url.rpartition("/")
    class_names = Manifest.from_json(Store(folder or ".").read(name)).class_names
    transform = v2.Compose([v2.RandomAffine(10, translate=(0.1, 0.1)), v2.ToDtype(torch.float32, scale=True)])
    # Every group equally often, small ones repeated; half of each group synthetic where it has both.
    stream = load_balanced(manifest_url, order="balanced", synthetic_share=0.5, transform=transform)
    head = nn.LazyLinear(len(class_names))
    model = nn.Sequential(nn.LazyConv2d(32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), head)
    model(next(iter(stream))["image"][None])  # the lazy layers take their sizes
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    progress = EpochProgress()  # progress.state() in a checkpoint lets load_balanced(resume=...) go on mid-epoch
    loss = torch.zeros(())
    for epoch in range(epochs):
        stream.set_epoch(epoch)
        for batch in DataLoader(stream, batch_size=64, num_workers=1):
            loss = nn.functional.cross_entropy(model(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress.add(batch)
        print(f"epoch {epoch}: loss {loss.item():.3f}, seen {sum(progress.state()['seen'].values())} images")
    return loss.item()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))

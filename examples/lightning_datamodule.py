"""A published dataset as a LightningDataModule: python examples/lightning_datamodule.py MANIFEST [EPOCHS]

Needs lightning beside this project: pip install lightning
"""

import sys

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from datasets import EpochProgress, load_balanced
from datasets.runs.manifest import Manifest
from datasets.storage.store import Store


class PublishedData(lightning.LightningDataModule):
    """Streams the published images; its state in Lightning's checkpoints lets an epoch go on in its middle."""

    def __init__(self, manifest, *, batch_size=64, num_workers=1, order="balanced", synthetic_share=0.5):
        super().__init__()
        self.save_hyperparameters()
        folder, _, name = manifest.rpartition("/")
        self.class_names = Manifest.from_json(Store(folder or ".").read(name)).class_names
        self.progress, self.resume = EpochProgress(), None

    def train_dataloader(self):
        """A fresh stream: set reload_dataloaders_every_n_epochs=1, so that every epoch has an order of its own."""
        wanted = self.hparams
        transform = v2.Compose([v2.RandomAffine(10, translate=(0.1, 0.1)), v2.ToDtype(torch.float32, scale=True)])
        stream = load_balanced(
            wanted.manifest,
            order=wanted.order,
            synthetic_share=wanted.synthetic_share,
            transform=transform,
            epoch=0 if self.trainer is None else self.trainer.current_epoch,
            resume=self.resume,
        )
        self.resume = None  # the next epoch begins at its beginning
        return DataLoader(stream, batch_size=wanted.batch_size, num_workers=wanted.num_workers)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        """Note the batch as seen; what a DataLoader's workers have read ahead does not count."""
        self.progress.add(batch)
        return batch

    def state_dict(self):
        """How far the epoch has come."""
        return {"progress": self.progress.state()}

    def load_state_dict(self, state):
        """Go on from there with the next stream."""
        self.resume = state["progress"]


class Classifier(lightning.LightningModule):
    """Stands for yours."""

    def __init__(self, num_classes):
        super().__init__()
        head = nn.LazyLinear(num_classes)
        self.network = nn.Sequential(
            nn.LazyConv2d(32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), head
        )
        self.seen = []

    def training_step(self, batch, batch_index):
        """Cross entropy."""
        self.seen += batch["key"]
        loss = nn.functional.cross_entropy(self.network(batch["image"]), batch["label"])
        self.log("loss", loss, batch_size=len(batch["label"]))
        return loss

    def configure_optimizers(self):
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(manifest, epochs=3, **trainer_settings):
    data = PublishedData(manifest)
    model = Classifier(len(data.class_names))
    model.network(next(iter(data.train_dataloader()))["image"])  # the lazy layers take their sizes
    settings = {"accelerator": "auto", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=epochs, reload_dataloaders_every_n_epochs=1, **(settings | trainer_settings))
    trainer.fit(model, datamodule=data)
    print(f"loss {trainer.callback_metrics['loss'].item():.3f}, seen {len(model.seen)} images")
    return model, data


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))

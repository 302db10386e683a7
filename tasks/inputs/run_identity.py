"""Which run it is: its settings, its recipe and where it lies. No model is in memory for it."""

from dataclasses import dataclass

from datasets.storage.store import Store
from tasks.config.runs import AugmentConfig


@dataclass(frozen=True)
class RunIdentity:
    """A run by name.

    Attributes:
        config: The run's config.
        recipe: 12 hex digits over everything that decides which images are published.
        real_digest: Digest of the training and validation images.
    """

    config: AugmentConfig
    recipe: str
    real_digest: str

    @property
    def run_id(self) -> str:
        """The run's name: as configured, or its recipe."""
        return self.config.run_id or self.recipe

    @property
    def store(self) -> Store:
        """The store of all datasets."""
        return Store(self.config.store)

    @property
    def dataset_store(self) -> Store:
        """The dataset's own part of the store."""
        return self.store.child(self.config.name)

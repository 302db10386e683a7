"""A campaign of faults: seeded runs that things happen to, each run again until it is done, and what readers saw.

A *run* has one store. Faults strike it one after the other, each while the run goes on from what the former left; then
it is run undisturbed to its end, and compared with a run that nothing happened to.
"""

import io
import tarfile
import threading
from collections import Counter
from dataclasses import dataclass, field

import pandas as pd

from datasets.runs.verify import verify
from datasets.storage.store import Store, StoreError

CHECKS = ("corrupt", "half-visible", "lost", "repeated")


@dataclass
class Tally:
    """How many faults struck, by kind, and how many of them lay in a run in which something was found."""

    struck: Counter = field(default_factory=Counter)
    found: dict = field(default_factory=lambda: {check: Counter() for check in CHECKS})
    looks: int = 0
    stories: list = field(default_factory=list)

    def add(self, kinds, findings, *, looks):
        """Count one run: the faults that struck it, and check -> what was found."""
        self.struck.update(kinds)
        self.looks += looks
        for check, problems in findings.items():
            if problems:
                self.found[check].update(kinds)
                self.stories.append(f"{check} after {', '.join(kinds)}: {problems[:3]}")

    def table(self):
        """As Markdown."""
        lines = [f"| fault | struck | {' | '.join(CHECKS)} |", "|---|---|---|---|---|---|"]
        for kind, count in sorted(self.struck.items()):
            lines.append(f"| {kind} | {count} | {' | '.join(str(self.found[check][kind]) for check in CHECKS)} |")
        total = [sum(self.found[check].values()) for check in CHECKS]
        lines.append(f"| **all** | **{self.struck.total()}** | {' | '.join(f'**{number}**' for number in total)} |")
        return "\n".join(lines)


class Reader:
    """Looks at a store for as long as the block runs, as a training job would: every dataset it sees must be whole."""

    def __init__(self, url, *, pause=0.3):
        self._store, self._pause = Store(url), pause
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again, daemon=True)
        self.looks, self.problems = 0, []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        self.look()

    def _look_again_and_again(self):
        while not self._ended.wait(self._pause):
            self.look()

    def look(self):
        """Check every manifest that can be seen, and that the pointer leads to one of them."""
        try:
            seen = self._store.list()
        except StoreError:  # the store itself is at fault: it shows nothing
            return
        manifests = [path for path in seen if path.endswith("manifest.json")]
        self.looks += bool(manifests)
        for manifest in manifests:
            self.problems += verify(self._store.url(manifest))
        if "digits/latest.json" in seen and not manifests:
            self.problems.append("latest.json leads nowhere")


def contents_of(url):
    """Path -> bytes of everything that a store shows."""
    store = Store(url)
    return {path: store.read(path) for path in store.list()}


def findings_of(url, undisturbed):
    """Check -> problems of a finished run, against the contents of one that nothing happened to."""
    found = contents_of(url)
    (manifest,) = (path for path in found if path.endswith("manifest.json"))
    folder = manifest.rpartition("/")[0]
    differing = sorted(path for path in found.keys() | undisturbed.keys() if found.get(path) != undisturbed.get(path))
    rows = pd.read_parquet(io.BytesIO(found[f"{folder}/metadata.parquet"]))
    published = Counter()
    for path, data in found.items():
        if path.startswith(f"{folder}/shards/"):
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                published.update(name.partition(".")[0] for name in tar.getnames() if name.endswith(".png"))
    drawn = rows[rows["sampler"] == "minority"]["sample_index"].astype(int)
    lost = sorted(set(range(drawn.max() + 1)) - set(drawn)) + sorted(set(rows[rows["kept"]]["key"]) - set(published))
    repeated = [key for key, times in published.items() if times > 1]
    repeated += rows["key"][rows["key"].duplicated()].tolist() + drawn[drawn.duplicated()].tolist()
    return {
        "corrupt": verify(Store(url).url(manifest)) + [f"{path} differs" for path in differing],
        "lost": lost,
        "repeated": repeated,
    }

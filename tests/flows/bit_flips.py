"""One flipped bit in one file of a store, and what became of it: made again, refused by name, or (never) passed on."""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from datasets.runs.latest import read_latest
from datasets.runs.plans import read_plan
from datasets.runs.verify import verify
from datasets.storage.store import Store
from datasets.streaming.published import read_published
from datasets.streaming.stream import PublishedStream, StreamSettings

#: Kind of file -> what its path in the store looks like, and whether it is struck before the run is published, when it
#: still decides what will be.
KINDS = {
    "unit": ("/units/", ".tar", "drawn"),
    "unit's table": ("/units/", ".parquet", "drawn"),
    "receipt": ("/units/", ".json", "drawn"),
    "plan": ("/plans/", ".parquet", "drawn"),
    "features": ("/features/", ".npy", "drawn"),
    "run.json": ("/run.json", "", "drawn"),
    "manifest": ("/manifest.json", "", "published"),
    "table": ("/metadata.parquet", "", "published"),
    "shard": ("/shards/", ".tar", "published"),
    "card": ("/README.md", "", "published"),
    "predictions": ("/predictions/", ".npz", "published"),
    "figures": ("/report/metrics.json", "", "published"),
    "history": ("/published/", ".json", "published"),
    "latest": ("/latest.json", "", "published"),
}
#: What a run that was killed before publishing does not have.
_PUBLISHED = (
    "/shards/",
    "/manifest.json",
    "/metadata.parquet",
    "/README.md",
    "/report/",
    "/downstream/",
    "/published/",
    "/latest.json",
)
OUTCOMES = ("made again", "refused by name", "silently different", "refused without a name")


@dataclass
class Tally:
    """What became of the flips, by kind of file."""

    outcomes: dict = field(default_factory=lambda: {outcome: Counter() for outcome in OUTCOMES})
    stories: list = field(default_factory=list)

    def add(self, kind, outcome, story=""):
        """Count one flip."""
        self.outcomes[outcome][kind] += 1
        if outcome in OUTCOMES[2:]:
            self.stories.append(f"{kind}: {outcome}: {story}")

    def table(self):
        """As Markdown."""
        kinds = sorted({kind for counted in self.outcomes.values() for kind in counted})
        lines = [f"| flipped in | flips | {' | '.join(OUTCOMES)} |", "|---" * (len(OUTCOMES) + 2) + "|"]
        for kind in kinds:
            counts = [self.outcomes[outcome][kind] for outcome in OUTCOMES]
            lines.append(f"| {kind} | {sum(counts)} | {' | '.join(map(str, counts))} |")
        totals = [self.outcomes[outcome].total() for outcome in OUTCOMES]
        return "\n".join(
            [*lines, f"| **all** | **{sum(totals)}** | {' | '.join(f'**{count}**' for count in totals)} |"]
        )


def flipped(data, rng):
    """The data with one random bit of it turned over."""
    broken = bytearray(data)
    bit = rng.randrange(8 * len(broken))
    broken[bit // 8] ^= 1 << bit % 8
    return bytes(broken)


class StoreFlips:
    """Flips in the store of a run, each followed by readers and by the same command again.

    Args:
        whole: Path -> bytes of the store of a finished run.
        run: Runs the command on a store's URL; gives exit code and stderr.
    """

    def __init__(self, whole, run):
        self._whole, self._run = whole, run
        self._seen = None

    def strike(self, kind, url, *, rng, tally):
        """Fill a store, flip a bit in a file of this kind, read, run again, and count what came of it."""
        begin, end, state = KINDS[kind]
        store, files = Store(url), dict(self._whole)
        if state == "drawn":
            files = {path: data for path, data in files.items() if not any(part in f"/{path}" for part in _PUBLISHED)}
        path = rng.choice(sorted(path for path in files if begin in f"/{path}" and path.endswith(end)))
        fill(store, files | {path: flipped(files[path], rng)})
        if state == "published":
            problem = self._misread(store, path)
            if problem:
                tally.add(kind, "silently different", problem)
                return
        ended = self._run(url)
        if ended.code == 0:
            found = {name: store.read(name) for name in store.list()}
            odd = sorted(name for name in found.keys() | self._whole.keys() if self._differs(name, found))
            tally.add(kind, "silently different" if odd else "made again", f"{path}: {odd[:3]}")
        elif path.rpartition("/")[2] in ended.stderr and len(ended.stderr.strip().splitlines()) == 1:
            tally.add(kind, "refused by name")
        else:
            tally.add(kind, "refused without a name", f"{path}: {ended.code} {ended.stderr[-500:]}")

    def _differs(self, name, found):
        """Whether a file is another than that of the undisturbed run. A plan's checksum is over what it says."""
        before, after = self._whole.get(name), found.get(name)
        if before == after or None in (before, after) or "/plans/" not in name:
            return before != after
        memory = Store("memory://plans")
        said = []
        for content in (before, after):
            memory.write(f"plans/{Path(name).name}", content)
            plan = read_plan(memory, Path(name).stem)
            said.append(None if plan is None else [part.tolist() for part in plan])
        return said[1] is None or said[0] != said[1]

    def _misread(self, store, path):
        """What a reader of the damaged store got that is not what was published, None where all is well."""
        manifest = next(store.url(name) for name in store.list() if name.endswith("/manifest.json"))
        if self._seen is None:
            self._seen = everything_read(*self._sound(store))
        named = path.rpartition("/")[2]
        for name, got in everything_read(store, manifest).items():
            if got != self._seen[name] and not (isinstance(got, str) and named in got):
                return f"{path}: {name} gave {got!r:.300}"
        in_manifest = any(part in f"/{path}" for part in _PUBLISHED[:4])
        return f"{path}: verify finds nothing" if in_manifest and not verify(manifest) else None

    def _sound(self, store):
        sound = Store("memory://sound")
        for name, data in self._whole.items():
            sound.write(name, data)
        return sound, next(sound.url(name) for name in sound.list() if name.endswith("/manifest.json"))


def fill(store, files):
    """Write files into an empty store; on a disk without waiting for it, as no power is lost here."""
    for name, data in files.items():
        if "://" in store.root:
            store.write(name, data)
            continue
        place = Path(store.root, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def everything_read(store, manifest):
    """What each reader makes of a store, or the message with which it refuses."""

    def streamed(order):
        samples = PublishedStream(manifest, StreamSettings(order=order, shuffle_buffer=0)).samples()
        return [(sample.key, sample.label, sample.pixels().tobytes()) for sample in samples]

    def indexed():
        images = read_published(manifest)
        return images.labels.tolist(), images.images(range(len(images))).tobytes()

    readers = {
        "the stream": lambda: streamed("natural"),
        "the balanced stream": lambda: streamed("balanced"),
        "the indexed set": indexed,
        "the pointer": lambda: read_latest(store, "digits"),
    }
    found = {}
    for name, read in readers.items():
        try:
            found[name] = read()
        except (ValueError, OSError) as error:
            found[name] = str(error)
    return found


def seeds(seed, count):
    """A generator of numbers for each flip, so that any flip can be repeated alone."""
    return [random.Random(f"{seed}-{number}") for number in range(count)]

"""The same shards without any of this project's code: python examples/bare_webdataset.py FOLDER_OF_SHARDS"""

import sys
from collections import Counter
from pathlib import Path

import webdataset as wds


def main(folder: str) -> Counter[tuple[str, str]]:
    shards = sorted(str(path) for path in Path(folder).glob("*.tar"))
    samples = wds.WebDataset(shards, shardshuffle=False).shuffle(1000).decode("rgb8")
    counts: Counter[tuple[str, str]] = Counter()
    for image, label, record in samples.to_tuple("png;webp;jpg", "cls", "json"):
        assert image.ndim == 3  # (H, W, 3), uint8; `label` is the class index
        assert label >= 0
        counts[record["group"], record["source"]] += 1
    for (group, source), count in sorted(counts.items()):
        print(f"{group:40} {source:10} {count}")
    return counts


if __name__ == "__main__":
    main(sys.argv[1])

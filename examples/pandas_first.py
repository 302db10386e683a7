"""Choose by the table, then open only what was chosen: python examples/pandas_first.py RUN_FOLDER"""

import sys
import tarfile
from pathlib import Path

import pandas as pd
from PIL import Image


def main(folder: str, most: int = 10) -> list[Image.Image]:
    run = Path(folder)
    columns = ["key", "group", "source", "minority_score", "shard"]
    table = pd.read_parquet(run / "metadata.parquet", columns=columns, filters=[("kept", "==", True)])
    print(table.groupby(["group", "source"], observed=True).size().to_string())
    rarest = table.sort_values("minority_score", ascending=False, na_position="last").head(most)
    images = []
    for shard, rows in rarest.groupby("shard", sort=True):
        with tarfile.open(run / str(shard)) as tar:
            members = {Path(name).stem: name for name in tar.getnames() if not name.endswith((".cls", ".json"))}
            for key in rows["key"]:
                file = tar.extractfile(members[key])
                assert file is not None
                images.append(Image.open(file).copy())
    print(f"opened {len(images)} images of {rarest['shard'].nunique()} shards")
    return images


if __name__ == "__main__":
    main(sys.argv[1])

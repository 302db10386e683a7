"""What makers call the parts of a set."""

#: Name in a folder or a cell, small letters -> part.
PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
#: Of folders, "testing" is understood, too.
PART_FOLDERS = PART_NAMES | {"testing": "test"}

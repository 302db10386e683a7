"""Images that are read where they are indexed, as those of a large set are."""

import numpy as np


class OnDisk:
    """An array of images that counts how many were asked for: in all (`read`), and the most at once (`most`)."""

    dtype = np.dtype(np.uint8)

    def __init__(self, pixels):
        self._pixels, self.shape, self.read, self.most = pixels, pixels.shape, 0, 0

    def __len__(self):
        return len(self._pixels)

    def __getitem__(self, indices):
        found = self._pixels[indices]
        self.read += len(found)
        self.most = max(self.most, len(found))
        return found

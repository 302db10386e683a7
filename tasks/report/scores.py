"""What scores are called on pages for people, and how they are read."""

#: Column of the table -> its title, and which end is which.
SCORE_NAMES = {
    "minority_score": ("Minority score", "larger = rarer"),
    "negative_elbo": (
        "Negative ELBO",
        "bits a pixel value, or a latent one; larger = rarer",
    ),
    "knn_distance": ("k-NN distance", "mean distance to the k nearest training images, larger = rarer"),
    "nearest_distance": ("Nearest distance", "to the nearest training image, smaller = closer to a copy"),
    "realism": ("Realism", "above 1 = inside the manifold of the training split"),
    "label_agreement": ("Label agreement", "how much nearer the own label's training images are, in [0, 1]"),
    "labeller_confidence": ("Labeller's confidence", "how sure the ensemble is of the group, in [0, 1]"),
}

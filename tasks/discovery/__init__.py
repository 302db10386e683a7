"""The search for hidden groups: biased models, one result file a training, and what follows from them."""

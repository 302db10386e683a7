"""What `minority headroom` finds lies in the store, for the reports of the same images."""

from datasets.storage.store import Store
from tasks.estimates.headroom import measure_headroom
from tasks.inputs.real_data import load_real_data
from tasks.inputs.stored_headroom import read_headroom


def test_what_is_found_is_kept_for_the_same_images_and_no_others(tiny_config):
    config = tiny_config()
    store = Store(config.store).child(config.name)
    digest = load_real_data(config.dataset).digest

    found = measure_headroom(config, seeds=2, arm="real", on_done=lambda done, total: None)
    kept = read_headroom(store, digest=digest)

    assert kept is not None
    assert (kept.recipe, kept.seeds) == ("real", 2)
    assert repr(list(kept.groups)) == repr(found)  # by their texts, as NaN is unlike itself
    assert read_headroom(store, digest="0" * 64) is None

"""What a synthetic PNG says of itself, so that it can be told when it has left its dataset.

Two texts in the file: XMP, which other programs look for, with the IPTC's term for what a generative model made
(https://cv.iptc.org/newscodes/digitalsourcetype/); and `minority-augment`, JSON that names what drew the image. They
are notes, not seals: whoever writes the image anew drops them, and anybody can write others.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from datasets.readers.images.png_chunks import texts_of, with_texts
from datasets.storage.canonical import canonical_json, parse_json

NOTE, XMP = "minority-augment", "XML:com.adobe.xmp"
_TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
#: Drawn from noise; a real image, noised and drawn on.
DRAWN, VARIANT = f"{_TERMS}trainedAlgorithmicMedia", f"{_TERMS}compositeWithTrainedAlgorithmicMedia"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="minority-augment" '
    'Iptc4xmpExt:DigitalSourceType="{term}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What drew a synthetic image.

    Attributes:
        dataset: The dataset that it was drawn for.
        recipe: Of the run: a hash over everything that decides its images.
        backbone: Name of the diffusion model.
        backbone_sha256: SHA-256 of its weights.
        seed: Of the run's noise.
        sample_index: The image's number in the run.
        edited_source_id: The real image that it is a variant of; None where it was drawn from noise.
    """

    dataset: str
    recipe: str
    backbone: str
    backbone_sha256: str
    seed: int
    sample_index: int
    edited_source_id: str | None = None


def with_provenance(png: bytes, provenance: Provenance) -> bytes:
    """The PNG with what drew it; its pixels stay, and equal arguments are equal bytes.

    Raises:
        ValueError: The bytes are no PNG.
    """
    said = {name: value for name, value in asdict(provenance).items() if value is not None}
    term = DRAWN if provenance.edited_source_id is None else VARIANT
    return with_texts(png, {XMP: _PACKET.format(term=term), NOTE: canonical_json(said).decode()})


def provenance_of_png(data: bytes, *, name: str) -> Provenance | None:
    """What a PNG says of itself; None where it says nothing in these words.

    Args:
        data: The file's bytes.
        name: What it is called in errors.

    Raises:
        ValueError: It is no PNG, or what it says is damaged or cannot be understood.
    """
    try:
        text = texts_of(data).get(NOTE)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}; give a PNG of a published run.") from error
    if text is None:
        return None
    content: Mapping[str, Any] = parse_json(text.encode(), name=f"{name}: its text {NOTE}")
    try:
        found = Provenance(**content)
    except TypeError as error:
        raise ValueError(f"{name} has a text {NOTE} that another version wrote ({error}); use that version.") from error
    if not isinstance(found.seed, int) or not isinstance(found.sample_index, int):
        raise ValueError(f"{name} has a text {NOTE} without numbers for seed and sample_index; it is damaged.")
    return found

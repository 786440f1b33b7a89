"""Open what a record names as an image, for reading, and use it only if it is what was recorded."""

from segment_slide.pipeline.errors import InputError, OtherImageError
from segment_slide.pipeline.recorded.addresses import check_address
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import is_same
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.label_records import SegmentedInput
from segment_slide.pipeline.storage.names import find_location

NAME_IT = "name it: `image={place!r}`"


def open_recorded(recorded: SegmentedInput, given: str) -> StoredImage:
    """Open the image that was segmented, where its record says.

    Parameters
    ----------
    recorded : SegmentedInput
        What the record says.
    given : str
        The store with the record, which the user named.

    Raises
    ------
    NotNamedError
        If it is at an address that the user did not name. Nothing was asked there.
    OtherImageError
        If another image is there, or nobody recorded what was there.
    InputError
        If it is not there any more.
    """
    place = find_location(recorded.location, given)
    if not place:
        raise InputError(f"{given}: no record says which image was segmented; name it with `image`.")
    check_address(place, given, remedy=NAME_IT.format(place=place))
    is_group = store.read_attributes(store.resolve_location(place)) is not None
    image = describe_image(place, level=recorded.level or 0, axes=None if is_group else recorded.axes or None)
    if not is_recorded(image, recorded.fingerprint):
        raise OtherImageError(
            f"{place} is not used: it is not the image that was segmented, or its files are others now. If it is the "
            f"right one, name it: `image={place!r}`."
        )
    return image


def is_recorded(image: StoredImage, mark: str) -> bool:
    """Whether an image is the one whose fingerprint was recorded; without a fingerprint nobody can tell.

    A place that cannot be asked, such as a web server, is believed if its metadata agree.
    """
    return bool(mark) and is_same(image, mark) is not False

"""Every error that mien raises on purpose. Each message names the thing, the value, what was expected and the next step."""


class MienError(Exception):
    """The root: catch this to catch everything that mien raises on purpose."""


class ImageError(MienError):
    """A picture that cannot be read: not a picture, truncated, too large, or a codec that is not installed."""


class PictureFormatError(ImageError):
    """Not a picture in a format that mien reads, or one whose codec is not installed."""


class PictureSizeError(ImageError):
    """A picture of more pixels than the limit."""


class VideoError(MienError):
    """A video that cannot be opened or decoded at all."""


class ModelError(MienError):
    """A model file that is not ours to use: no card, an incomplete card, or outputs that contradict the card."""


class DetectorError(MienError):
    """Detector weights that are missing or are not the files that were expected."""


class LabelError(MienError):
    """A label that is not in the vocabulary, or label orders that contradict each other."""


class DataError(MienError):
    """A dataset that is absent, incomplete, or not what its owner ships."""


class RankError(MienError):
    """A training over several processes lost one of them, or did not get them together."""


class UsageError(MienError):
    """A call that cannot mean anything: an unknown name, an option out of range, a wrong combination."""


class EngineError(MienError):
    """A cluster that cannot be reached, whose nodes differ from this machine, or that gave up."""

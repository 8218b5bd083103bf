"""Any number of classes of images, from a folder, scikit-learn's digits or torchvision's sets."""

from __future__ import annotations

from typing import Any, Literal, final, get_args

from numpy.typing import NDArray

from janus_pl.data.digits import DIGITS, Digits
from janus_pl.data.image_folder import ImageFolder, folder_names
from janus_pl.data.images import Images
from janus_pl.data.source import Source, class_indices
from janus_pl.data.splits import Noise, RawImages, with_noise
from janus_pl.data.torchvision_sets import NAMES, TorchvisionSet
from janus_pl.errors import UsageError, check_integer, check_name, is_integer, is_number

SourceName = Literal["folder", "digits", "CIFAR10", "CIFAR100", "MNIST", "FashionMNIST"]
FOLDER = "data"
FOLDER_SIZE = 32
WAYS = "--data.source folder --data.root DIR for a folder of images, or --data.source digits"


@final
class ImageClasses(Images):
    """K >= 2 classes of images; labels are the integers 0 to K - 1, in the order of `classes`.

    - `folder`: ROOT/train/CLASS and ROOT/test/CLASS, as `ImageFolderPair` reads them;
    - `digits`: the ten handwritten digits that scikit-learn ships, as `DigitsPair` has them;
    - `CIFAR10`, `CIFAR100`, `MNIST`, `FashionMNIST`: torchvision's, compared with their checksums.

    Images have three channels, equal ones if they are gray. CIFAR-10 is standardized by its usual
    channel means and standard deviations, the others by those of all their training images.

    `noisy` (N,) says which training labels are replaced, in data order; None without noise.

    Args:
        source: Where the images come from.
        root: Folder of the images, or of torchvision's data (not set: `data`); may start with ~.
        classes: The classes in the order of their labels: names of folders, digits, or classes by
            index or name. Not set: all of them, folders in alphabetical order.
        label_noise: The share of training labels that are replaced by another class, in [0, 1).
            round(label_noise N) labels change, all other classes being equally likely. The seed
            decides which; a larger share changes the labels that a smaller one changes, and more.
        image_size: Height and width of a folder's images in pixels (not set: 32).
        download: Fetch torchvision's data where they are missing (not set: true).
        **options: Those of `Images`.

    Raises:
        UsageError: An option is out of its range or of another source, or the data are missing.
    """

    def __init__(
        self,
        source: SourceName = "digits",
        root: str | None = None,
        classes: list[str | int] | None = None,
        label_noise: float = 0.0,
        image_size: int | None = None,
        download: bool | None = None,
        **options: Any,
    ) -> None:
        # Before the base class, which checks all options.
        self.source: SourceName = source
        self.root = root
        self.classes = classes
        self.label_noise = label_noise
        self.download = download
        if source == "folder":
            self.image_size = FOLDER_SIZE if image_size is None else image_size
        elif image_size is not None:
            raise UsageError("data.image_size", image_size, f"null for data.source {source}")
        super().__init__(**options)

    def prepare_data(self) -> None:
        """Download what is missing, and check what is there."""
        self._source().prepare()

    def read(self) -> RawImages:
        return self._source().read()

    def _source(self) -> Source:
        if self.source == "folder":
            return ImageFolder(str(self.root), folder_names(self.classes), self.image_size)
        if self.source == "digits":
            return Digits(class_indices(self.classes, DIGITS))
        root, download = self.root or FOLDER, self.download is not False
        return TorchvisionSet(self.source, root, self.classes, download, WAYS)

    def _check_options(self) -> None:
        """Refuse options out of their range, and those that the source has no use for."""
        check_name("data.source", self.source, get_args(SourceName))
        if not is_number(self.label_noise) or not 0 <= self.label_noise < 1:
            raise UsageError("data.label_noise", self.label_noise, "a number from 0 to below 1")
        here = self.source in ("folder", "digits")
        unused = {"root": self.source == "digits", "download": here}
        for name, is_unused in unused.items():
            if is_unused and getattr(self, name) is not None:
                allowed = f"null for data.source {self.source}"
                raise UsageError(f"data.{name}", getattr(self, name), allowed)
        if not isinstance(self.root, str) and (self.root is not None or self.source == "folder"):
            raise UsageError("data.root", self.root, "a folder")
        if self.source == "folder":
            check_integer("data.image_size", self.image_size, 1)
        self._check_classes()
        super()._check_options()

    def _check_classes(self) -> None:
        """Check what can be checked before the classes of the data are known."""
        if self.source == "folder":
            count = len(folder_names(self.classes) or (0, 1))
        else:
            count = len(class_indices(self.classes, {"digits": DIGITS, **NAMES}[self.source]))
        if is_integer(self.num_train, most=count - 1):
            allowed = f"an integer from {count} up (the number of classes), or null for all"
            raise UsageError("data.num_train", self.num_train, allowed)

    @property
    def _draws(self) -> bool:
        return super()._draws or self.label_noise > 0

    def _noise(self, labels: NDArray[Any], count: int) -> Noise | None:
        return with_noise(labels, self.label_noise, count, self.seed) if self.label_noise else None

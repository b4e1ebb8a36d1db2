"""What cannot be deployed."""

from collections.abc import Iterator
from contextlib import contextmanager

from halfbyte.errors import HalfbyteError, UsageError


class DeployError(HalfbyteError):
    """A checkpoint, plan or platform from which no working manifests can be made."""

    kind = "deploy"


@contextmanager
def files_at_fault() -> Iterator[None]:
    """The command was called rightly; what its files say is wrong."""
    try:
        yield
    except UsageError as error:
        raise DeployError(error.message, hint=error.hint) from None

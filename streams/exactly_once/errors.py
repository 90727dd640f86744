"""What ends the process although it is met while a record is decided: the disk's fault, never the
record's."""


class StoreError(Exception):
    """The local store cannot be read. It is a cache: whoever starts next may discard it."""

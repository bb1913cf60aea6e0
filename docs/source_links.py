"""Links from the reference to the source."""


def setup(app):
    """Nothing yet."""
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The command line.

- ``commands``: the commands themselves; loaded late, since they import the whole library.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)

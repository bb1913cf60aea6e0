"""The command line.

- ``commands``: what the commands do; it stands on the whole library, so it is loaded late.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)

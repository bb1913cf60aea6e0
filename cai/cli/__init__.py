"""The command line.

Loaded when they are first asked for, since they import large parts of the library:

- ``commands``: what runs a command, and the light ones.
- ``train_command``: learners from transitions.
- ``irl_command``: rewards from demonstrations.
- ``run_routes``: road networks.
- ``write_explorer``: a page for a browser.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)

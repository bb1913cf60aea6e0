"""The command line.

Loaded when they are first asked for, since they import large parts of the library:

- ``commands``: what runs a command, and the light ones.
- ``train_command``: learners from transitions.
- ``irl_command``: rewards from demonstrations.
- ``run_routes``: road networks.
- ``loading``, ``output``: models by name, and the files of a command.
- ``facts``, ``has_table``: what there is to say of a model.
- ``table_of``, ``title``, ``state``, ``action``, ``show``, ``to_json``, ``untrained``,
  ``check_save``, ``keep``: what commands share.
- ``ModelFactory``, ``SweptMethod``, ``check_points``: what a sweep sends to other processes.
- ``write_explorer``: a page for a browser.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)

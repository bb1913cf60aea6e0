from . import commands as commands
from . import irl_command as irl_command
from . import train_command as train_command
from .roads.routes_command import run_routes as run_routes
from .verbs.explore_command import write_explorer as write_explorer

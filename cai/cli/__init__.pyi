from . import commands as commands
from . import irl_command as irl_command
from . import train_command as train_command
from .roads import routes_command as routes_command

from . import commands as commands

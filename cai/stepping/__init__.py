"""Sources of transitions, one step at a time: programs, tables and Gymnasium environments."""

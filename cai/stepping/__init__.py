"""Transitions, drawn one step at a time: of programs, tables and Gymnasium's environments."""

"""Infinite horizons: stationary values, averages, linear systems and goals."""

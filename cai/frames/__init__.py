"""Frames: results as data frames of pandas, data sets of xarray, and data trees of ArviZ."""

"""What all figures share: the canvas, maps, bars, colours, and how numbers are written."""

"""Arrays, memory, threads and number types: what knows no control problem."""

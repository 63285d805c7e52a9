"""Plain rounding from floats to the integers of a `.sqz` file, and the photos that set its scales."""

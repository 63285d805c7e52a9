"""Compressors: from a float network to the integers of a `.sqz` file."""

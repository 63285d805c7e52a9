"""Deep Compression, the method of 2016: pruning, shared weights, Huffman coding."""

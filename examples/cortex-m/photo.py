"""Write a photo as the network sees it, as a C header: python photo.py MODEL PHOTO > photo.h"""

import sys
from pathlib import Path

import numpy as np

import squeezenet

classifier = squeezenet.Classifier(sys.argv[1])
pixels = np.asarray(classifier.preprocessing(squeezenet.load_image(Path(sys.argv[2]).read_bytes())))
rows = ",\n".join("{" + ",".join(map(str, row.ravel())) + "}" for row in pixels)
print(f"#include <stdint.h>\nstatic const uint8_t photo[{pixels.shape[0]}][{pixels.shape[1] * 3}] = {{\n{rows}\n}};")

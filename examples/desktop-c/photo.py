"""Write a photo as the network sees it, resized and cropped, as a PPM file: python photo.py MODEL PHOTO photo.ppm"""

import sys
from pathlib import Path

from PIL import Image

import squeezenet

classifier = squeezenet.Classifier(sys.argv[1])
pixels = classifier.preprocessing(squeezenet.load_image(Path(sys.argv[2]).read_bytes()))
Image.fromarray(pixels).save(sys.argv[3])

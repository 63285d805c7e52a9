"""Classify photos with a network that ships with the package. No PyTorch.

python examples/predict.py PHOTO...
"""

import sys

import squeezenet

for answer in squeezenet.predict("imagenette", sys.argv[1:], top=2):
    if answer.error:
        print(f"{answer.name}: {answer.error}")
        continue
    print(answer.name, ", ".join(f"{p.label} {p.probability:.0%}" for p in answer.predictions))

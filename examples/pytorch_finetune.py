"""Fine-tune SqueezeNet in a PyTorch loop of your own, then squeeze it. (`squeezenet train` does more: docs/train.md.)

python examples/pytorch_finetune.py PHOTOS OUT.sqz [--scratch]      PHOTOS has one folder of photos per class
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import squeezenet
from squeezenet.preprocess import TORCHVISION_PREPROCESSING

folder, out, *options = sys.argv[1:]
photos = squeezenet.open_data(folder)
model = squeezenet.squeezenet1_1(weights=None if options else "IMAGENET1K_V1")  # published weights, fetched once
model.classifier[1] = nn.Conv2d(512, len(photos.classes), kernel_size=1)  # as with torchvision
model.labels = squeezenet.Labels(photos.classes)
model.preprocessing = TORCHVISION_PREPROCESSING  # how photos become its input; kept in the file

images = model.transform([photos.read(i) for i in range(len(photos))])  # (N, 3, 224, 224)
loader = DataLoader(TensorDataset(images, torch.tensor(photos.labels)), batch_size=32, shuffle=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
for epoch in range(2):
    for x, target in loader:
        loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

small = squeezenet.compress(model.eval(), out, method=squeezenet.Int8(), calibration=folder)
print(f"{out}: {small.file_bytes:,} bytes")

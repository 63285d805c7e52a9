"""Images on their way to a training step: augmentation, batches, shards. Torch is used here."""

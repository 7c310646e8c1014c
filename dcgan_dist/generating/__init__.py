"""What a trained checkpoint is looked at with: images, walks between latents, arithmetic on them, neighbours."""

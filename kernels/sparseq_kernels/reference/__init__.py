"""Plain PyTorch, the ground truth of every op; runs on any device and never hurries."""

"""Where the figures of a run go: a JSONL file, TensorBoard, Weights & Biases and the console."""

"""What the paper measures, as pure functions: tensors in, tensors out."""

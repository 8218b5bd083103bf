"""What was recorded, shown: figures, the page, and W&B's views. No trainer in here."""

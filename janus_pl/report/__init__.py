"""What was recorded: reading runs, and the paper's predictions against them. No trainer in here."""

"""What a collection is made of: vectors, ours or another model's; sources; points."""

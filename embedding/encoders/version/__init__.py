"""The version encoder: one vector per performance, close to the other versions of its work."""

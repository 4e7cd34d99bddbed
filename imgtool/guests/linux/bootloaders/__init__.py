"""Boot loaders, one file each: what their menu offers, what boots when nobody chooses, and how that is changed."""

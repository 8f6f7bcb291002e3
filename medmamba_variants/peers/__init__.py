"""Networks by other people: timm's classifiers by name, and modules of one's own by dotted path."""

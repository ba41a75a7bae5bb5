"""Collections into an index: what there is (`sources`), and bringing an index up to date with it (`sync`)."""

"""Studies as they are published: a folder with the answer, the page, its tables, and the ledger that rebuilds them."""

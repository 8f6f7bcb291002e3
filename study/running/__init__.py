"""A launch at work: the session from plan to closing table, and the driver, the only writer."""

"""What looks after the project. Scripts: ``setup``, ``demo``; programs: ``reference``, ``fuzz``, ``soak``, ``mutation``."""

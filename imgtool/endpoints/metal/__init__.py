"""Physical machines: their disks, here or at the far end of an ssh connection.

``far`` runs there (standard library only, sent over ssh's standard input); ``wire`` is what both ends say to each other;
``client`` is the near end.
"""

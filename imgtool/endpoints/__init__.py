"""Where machines come from: for now, folders of this host."""

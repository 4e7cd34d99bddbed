"""What is inside a disk: the guest's file systems, looked at in the libguestfs appliance, never by the host's kernel."""

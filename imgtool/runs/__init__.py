"""What a command line or a runbook asks for, turned into a plan, and a plan carried out."""

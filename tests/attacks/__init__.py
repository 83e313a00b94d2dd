"""What dishonest services try on clients and witnesses, over real processes; docs/attacks.md lists it."""
